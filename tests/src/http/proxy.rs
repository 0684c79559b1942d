//! In front of a real registry, to change what it says.

use super::{Answer, Request, Server};
use crate::certificates::Identity;
use std::io::Write as _;
use std::net::TcpStream;

/// A proxy that passes requests on and may answer something else.
#[derive(Debug)]
pub struct Proxy(Server);

impl Proxy {
    /// In front of what listens, without TLS, on this port of 127.0.0.1. `change` gets each request
    /// with the registry's answer, and says what the client gets.
    pub fn of(
        port: u16,
        change: impl Fn(&Request, Answer) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self(Server::plain(move |request| change(request, ask(port, request))))
    }

    /// The same, with TLS for who asks.
    pub fn tls(
        identity: &Identity,
        port: u16,
        change: impl Fn(&Request, Answer) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let handler = move |request: &Request| change(request, ask(port, request));
        Self(Server::tls("127.0.0.1:0", identity, handler))
    }

    /// The server that clients see.
    pub fn server(&self) -> &Server {
        &self.0
    }
}

/// Passes a request on and returns the answer.
fn ask(port: u16, request: &Request) -> Answer {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the registry runs");
    // Of HTTP 1.0 an answer ends with its connection. Who may ask is not the registry's business.
    let mut head = format!("{} {} HTTP/1.0\r\n", request.method, request.target);
    for (name, value) in &request.headers {
        if !matches!(name.as_str(), "connection" | "authorization") {
            head += &format!("{name}: {value}\r\n");
        }
    }
    stream.write_all((head + "\r\n").as_bytes()).unwrap();
    stream.write_all(&request.body).unwrap();
    Answer::read(request, &mut stream).unwrap_or_else(|_| Answer::status(502))
}
