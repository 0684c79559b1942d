//! Somebody between the program and the TPM who can stop, repeat and answer commands: so that a test
//! can kill the program at an exact moment, and play a TPM that is busy or dead.

use super::place::two_ports;
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// `TPM2_PCR_Extend` (TPM 2.0 part 2, "TPM_CC").
pub(crate) const EXTEND: u32 = 0x0182;
/// `TPM2_Quote`.
pub(crate) const QUOTE: u32 = 0x0158;
/// `TPM2_PCR_Read`.
pub(crate) const READ: u32 = 0x017e;
/// `TPM2_GetCapability`.
pub(crate) const CAPABILITY: u32 = 0x017a;

/// What is done with a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    /// The TPM gets it, the program gets the answer.
    Pass,
    /// Neither gets anything.
    Swallow,
    /// The TPM gets it, the program doesn't get the answer.
    Withhold,
    /// The program gets this response code, the TPM nothing.
    Answer(u32),
}

/// Decides about each command; `Swallow` and `Withhold` are told to the test.
type Judge = Arc<Mutex<dyn FnMut(u32) -> Deed + Send>>;

/// Begins to stand between; returns the port to connect to.
pub(crate) fn between(tpm: u16, judge: impl FnMut(u32) -> Deed + Send + 'static) -> u16 {
    let judge: Judge = Arc::new(Mutex::new(judge));
    stand(tpm, move |client| carry(client, tpm, &judge, &Wire::default()))
}

/// All commands and responses that went by.
pub(crate) type Wire = Arc<Mutex<Vec<u8>>>;

/// Begins to listen; returns the port to connect to, and what is heard.
pub(crate) fn overhear(tpm: u16) -> (u16, Wire) {
    let wire = Wire::default();
    let judge: Judge = Arc::new(Mutex::new(|_| Deed::Pass));
    let heard = wire.clone();
    (stand(tpm, move |client| carry(client, tpm, &judge, &heard)), wire)
}

fn stand(
    tpm: u16,
    carry: impl Fn(TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
) -> u16 {
    let carry = Arc::new(carry);
    let port = two_ports();
    let commands = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let control = TcpListener::bind(("127.0.0.1", port + 1)).unwrap();
    thread::spawn(move || {
        for client in commands.incoming() {
            let (client, carry) = (client.unwrap(), carry.clone());
            thread::spawn(move || {
                // A side that has gone ends it.
                let _ = carry(client);
            });
        }
    });
    thread::spawn(move || {
        for client in control.incoming() {
            let client = client.unwrap();
            let Ok(server) = TcpStream::connect(("127.0.0.1", tpm + 1)) else { continue };
            copy(client.try_clone().unwrap(), server.try_clone().unwrap());
            copy(server, client);
        }
    });
    port
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
}

fn carry(mut client: TcpStream, tpm: u16, judge: &Judge, wire: &Wire) -> std::io::Result<()> {
    let mut server = TcpStream::connect(("127.0.0.1", tpm))?;
    loop {
        let command = message(&mut client)?;
        let code = u32::from_be_bytes(command[6..10].try_into().unwrap());
        let deed = (judge.lock().unwrap())(code);
        match deed {
            Deed::Pass => {
                server.write_all(&command)?;
                let response = message(&mut server)?;
                wire.lock().unwrap().extend([command, response.clone()].concat());
                client.write_all(&response)?;
            }
            Deed::Swallow => wait(&mut client)?,
            Deed::Withhold => {
                server.write_all(&command)?;
                message(&mut server)?;
                wait(&mut client)?;
            }
            Deed::Answer(code) => {
                let answer = [&[0x80, 0x01, 0, 0, 0, 10][..], &code.to_be_bytes()].concat();
                client.write_all(&answer)?;
            }
        }
    }
}

/// Until the other side is gone.
fn wait(client: &mut TcpStream) -> std::io::Result<()> {
    std::io::copy(client, &mut std::io::sink())?;
    Err(std::io::ErrorKind::UnexpectedEof.into())
}

/// One command or response: tag, size, code, and the rest.
fn message(from: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut message = vec![0; 10];
    from.read_exact(&mut message)?;
    let size = u32::from_be_bytes(message[2..6].try_into().unwrap());
    message.resize(size.try_into().unwrap(), 0);
    from.read_exact(&mut message[10..])?;
    Ok(message)
}
