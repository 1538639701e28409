//! Asking a program how it is, from beside it: what a container's health check runs, without tools of its own.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// For the whole answer.
const PATIENCE: Duration = Duration::from_secs(4);
/// Bytes of an answer that are looked at.
const ANSWER_MAX: u64 = 4 << 10;
/// A status file is written every few seconds; an older one was left by a program that hangs or is gone.
const STATUS_AGE_MAX: Duration = Duration::from_secs(60);

/// Why a program is not taken to be well.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    /// Not an address that can be asked.
    #[error("{0} is not of the form http://HOST:PORT/PATH")]
    Url(String),
    /// Nobody answers.
    #[error("{url} does not answer")]
    Unreachable {
        /// Who was asked.
        url: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It answers that it is not well.
    #[error("{url} answers: {answer}")]
    Unwell {
        /// Who was asked.
        url: String,
        /// The first line of the answer.
        answer: String,
    },
    /// No status file, or one that cannot be looked at.
    #[error("there is no status in {}", path.display())]
    NoStatus {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The status file is old.
    #[error("the status in {} is {age_secs} s old", path.display())]
    OldStatus {
        /// The file.
        path: PathBuf,
        /// Its age.
        age_secs: u64,
    },
}

/// Asks a health route by plain HTTP.
///
/// # Errors
/// No answer in time, or any other than 200.
pub fn ask_health(url: &str) -> Result<(), HealthError> {
    let parts = url.strip_prefix("http://").and_then(|rest| {
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let plain = rest.bytes().all(|c| c.is_ascii_graphic()) && !host.is_empty();
        plain.then_some((host, path))
    });
    let (host, path) = parts.ok_or_else(|| HealthError::Url(url.to_owned()))?;
    let answer =
        first_line(host, path).map_err(|source| HealthError::Unreachable { url: url.to_owned(), source })?;
    match answer.split(' ').nth(1) {
        Some("200") => Ok(()),
        _ => Err(HealthError::Unwell { url: url.to_owned(), answer }),
    }
}

fn first_line(host: &str, path: &str) -> io::Result<String> {
    let with_port = if host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
        host.to_owned()
    } else {
        format!("{host}:80")
    };
    let nobody = || io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    let address = with_port.to_socket_addrs()?.next().ok_or_else(nobody)?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream
        .write_all(format!("GET /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut answer)?;
    let text = String::from_utf8_lossy(&answer);
    Ok(text.lines().next().unwrap_or_default().chars().filter(|c| !c.is_control()).take(200).collect())
}

/// Looks whether a status file was written lately.
///
/// # Errors
/// It is not there, or old.
pub fn check_status_file(path: &Path) -> Result<(), HealthError> {
    let failed = |source| HealthError::NoStatus { path: path.to_owned(), source };
    let written = std::fs::metadata(path).and_then(|metadata| metadata.modified()).map_err(failed)?;
    // A file from the future is one whose clock was set back; the next write mends that.
    let age = SystemTime::now().duration_since(written).unwrap_or_default();
    if age <= STATUS_AGE_MAX {
        return Ok(());
    }
    Err(HealthError::OldStatus { path: path.to_owned(), age_secs: age.as_secs() })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// A server that says one thing to everybody.
    fn serve(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/health/ready", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                drop(stream.read(&mut [0; 512]));
                drop(stream.write_all(answer.as_bytes()));
            }
        });
        url
    }

    #[test]
    fn only_200_is_well() {
        ask_health(&serve("HTTP/1.1 200 OK\r\n\r\n{}")).unwrap();
        let stopping = ask_health(&serve("HTTP/1.1 503 Service Unavailable\r\n\r\n")).unwrap_err();
        assert!(stopping.to_string().contains("503"), "{stopping}");
        for odd in ["", "nonsense", "HTTP/1.1 2000 OK\r\n", "\u{1b}[31mHTTP"] {
            let error = ask_health(&serve(odd)).unwrap_err().to_string();
            assert!(!error.contains('\u{1b}'), "{error:?}");
        }
    }

    #[test]
    fn nobody_there_and_no_address_are_told_apart() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let gone = ask_health(&format!("http://{free}/"));
        assert!(matches!(gone, Err(HealthError::Unreachable { .. })), "{gone:?}");
        for url in ["", "https://host/", "http://", "http:///x", "http://h/a b\r\n"] {
            assert!(matches!(ask_health(url), Err(HealthError::Url(_))), "{url:?}");
        }
    }
}
