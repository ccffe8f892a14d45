//! What a client is told for whom there is no place. Told once, without waiting: who does not listen is not waited for.

use tokio::net::TcpStream;

use crate::access::Protocol;

const HTTP: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close\r\n\
    content-length: 138\r\n\r\n\
    {\"error\":{\"message\":\"as many connections are open as may be; try again\",\"type\":\"server_error\",\"param\":null,\"code\":\"TOO_MANY_CONNECTIONS\"}}";

/// HTTP/2: empty SETTINGS, then GOAWAY for stream 0 with `ENHANCE_YOUR_CALM` (11) and a word about why (RFC 9113, 6.5 and 6.8).
const GRPC: &[u8] =
    b"\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x1c\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x0btoo_many_connections";

/// A socket that was just accepted has room for this.
pub(super) fn tell(stream: &TcpStream, protocol: Protocol) {
    let words = match protocol {
        Protocol::Grpc => GRPC,
        Protocol::Http => HTTP,
    };
    let _ = stream.try_write(words);
    // what the client has sent already would turn the close into a reset, which loses these words on their way
    let _ = stream.try_read(&mut [0; 4096]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_right() {
        let text = String::from_utf8(HTTP.to_vec()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{} {head}", body.len());
        serde_json::from_str::<serde_json::Value>(body).unwrap();
        assert_eq!(GRPC.len(), 9 + 9 + usize::from(GRPC[11]));
    }
}
