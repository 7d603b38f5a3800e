//! The least of an HTTP/1.1 client, one connection a request, for tests that must send what no client would.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longer than any reply in a test takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// Status line and headers, as they came.
    pub head: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Reply {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find_map(|(own, value)| own.eq_ignore_ascii_case(name).then(|| value.trim()))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A connection.
///
/// # Errors
/// Those of the socket.
pub fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Reads one reply.
///
/// # Errors
/// Those of the socket; a reply without a length, or none.
pub fn reply(stream: &mut TcpStream) -> Result<Reply> {
    let wrong = |why: &str| Error::new(ErrorKind::InvalidData, why.to_owned());
    let mut bytes = Vec::new();
    let mut chunk = [0; 1 << 16];
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        match stream.read(&mut chunk)? {
            0 => return Err(Error::new(ErrorKind::UnexpectedEof, "closed before a reply")),
            count => bytes.extend_from_slice(&chunk[..count]),
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).map_err(|_| wrong("headers are not text"))?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(|| wrong("no status"))?;
    let mut reply = Reply { status, head, body: bytes.split_off(end) };
    let length = reply.header("content-length").and_then(|length| length.parse().ok());
    let length: usize = length.ok_or_else(|| wrong("no Content-Length"))?;
    let have = reply.body.len();
    reply.body.resize(length, 0);
    stream.read_exact(&mut reply.body[have..])?;
    Ok(reply)
}

/// Sends bytes and reads one reply. The server may answer, and close, before it has read everything.
///
/// # Errors
/// Those of the socket.
pub fn send(address: SocketAddr, bytes: &[&[u8]]) -> Result<Reply> {
    send_on(&mut connect(address)?, bytes)
}

/// The same on a connection that is there.
///
/// # Errors
/// Those of the socket.
pub fn send_on(stream: &mut TcpStream, bytes: &[&[u8]]) -> Result<Reply> {
    for part in bytes {
        if stream.write_all(part).is_err() {
            break;
        }
    }
    reply(stream)
}

/// A GET.
///
/// # Errors
/// Those of the socket.
pub fn get(address: SocketAddr, path: &str) -> Result<Reply> {
    send(address, &[format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes()])
}

/// Request line and headers of a POST to `/invocations`.
pub fn post_head(length: usize) -> String {
    format!(
        "POST /invocations HTTP/1.1\r\nHost: test\r\nContent-Type: application/octet-stream\r\nContent-Length: {length}\r\n\r\n"
    )
}

/// A POST to `/invocations`.
///
/// # Errors
/// Those of the socket.
pub fn invoke(address: SocketAddr, body: &[u8]) -> Result<Reply> {
    send(address, &[post_head(body.len()).as_bytes(), body])
}
