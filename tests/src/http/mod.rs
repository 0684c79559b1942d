//! An HTTP server of a few lines, so that every part of an answer can lie; and what is in front of
//! a real registry.

mod message;
mod proxy;

pub use message::{Answer, End, Request};
pub use proxy::Proxy;

use crate::certificates::Identity;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::spawn;
use std::time::Duration;

/// What a server does with a request.
type Handler = dyn Fn(&Request) -> Answer + Send + Sync;

/// A running server. Dropped, it takes no further connection.
pub struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    stopped: Arc<AtomicBool>,
}

impl Server {
    /// A server without TLS at a free port of 127.0.0.1.
    pub fn plain(handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        Self::start(TcpListener::bind("127.0.0.1:0").unwrap(), None, Arc::new(handler))
    }

    /// A server with TLS at this address; port 0 is a free one.
    pub fn tls(
        address: &str,
        identity: &Identity,
        handler: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap_or_else(|it| panic!("{address}: {it}"));
        Self::start(listener, Some(Arc::new(identity.server_config())), Arc::new(handler))
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// `localhost:PORT`
    pub fn name(&self) -> String {
        format!("localhost:{}", self.port())
    }

    /// What it was asked so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    fn start(listener: TcpListener, tls: Option<Arc<ServerConfig>>, handler: Arc<Handler>) -> Self {
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let stopped = Arc::new(AtomicBool::new(false));
        let (log, stop) = (requests.clone(), stopped.clone());
        spawn(move || {
            for connection in listener.incoming() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let Ok(connection) = connection else { continue };
                let (tls, handler, log) = (tls.clone(), handler.clone(), log.clone());
                // A client that hangs up or sends nonsense is the client's business.
                spawn(move || serve(connection, tls, &*handler, &log));
            }
        });
        Self { address, requests, stopped }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // Wakes it from its wait for a connection.
        let _ = TcpStream::connect(self.address);
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

/// Answers the requests of one connection.
fn serve(
    connection: TcpStream,
    tls: Option<Arc<ServerConfig>>,
    handler: &Handler,
    log: &Mutex<Vec<Request>>,
) -> io::Result<()> {
    connection.set_read_timeout(Some(Duration::from_secs(60)))?;
    connection.set_nodelay(true)?;
    let mut stream: Box<dyn Stream> = match tls {
        None => Box::new(connection),
        Some(config) => {
            let tls = ServerConnection::new(config).map_err(io::Error::other)?;
            Box::new(StreamOwned::new(tls, connection))
        }
    };
    while let Some(request) = Request::read(&mut stream)? {
        log.lock().unwrap().push(request.clone());
        let answer = handler(&request);
        let last = answer.write(&request, &mut stream)?;
        if last {
            break;
        }
    }
    Ok(())
}
