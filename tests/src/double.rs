//! A server of tests: answers HTTP requests as a closure says, one connection a request, so that it can fail in every way.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

/// A request as it arrived.
#[derive(Debug)]
pub struct Asked {
    /// The method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Header fields, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Asked {
    /// A header field; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(own, _)| own == name).map_or("", |(_, value)| value)
    }
}

/// What the closure does with a request.
#[derive(Debug)]
pub enum Reaction {
    /// Answers with a status, header fields and a body.
    Answer(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// Closes the connection without a word.
    HangUp,
}

/// Listens on a free port of this machine as long as the process runs, and returns the address.
///
/// # Panics
/// Where no port is free.
pub fn serve(mut react: impl FnMut(Asked) -> Reaction + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = format!("http://{}", listener.local_addr().expect("a bound listener has an address"));
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            // A client that goes away is no failure of the server.
            let _ = answer(&connection, &mut react);
        }
    });
    address
}

fn answer(mut connection: &TcpStream, react: &mut impl FnMut(Asked) -> Reaction) -> std::io::Result<()> {
    let mut reader = BufReader::new(connection);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut asked = Asked { method, path, headers, body: Vec::new() };
    if !asked.header("expect").is_empty() {
        connection.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    asked.body = vec![0; asked.header("content-length").parse().unwrap_or(0)];
    reader.read_exact(&mut asked.body)?;
    let Reaction::Answer(status, headers, body) = react(asked) else { return Ok(()) };
    write!(connection, "HTTP/1.1 {status} Status\r\ncontent-length: {}\r\nconnection: close\r\n", body.len())?;
    for (name, value) in headers {
        write!(connection, "{name}: {value}\r\n")?;
    }
    connection.write_all(b"\r\n")?;
    connection.write_all(&body)
}
