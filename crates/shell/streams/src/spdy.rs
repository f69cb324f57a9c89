//! The client's half of SPDY/3.1, as far as container runtimes use it: streams, data, end of stream, ping.
//!
//! Header blocks are sent in stored (uncompressed) deflate blocks: they are a few dozen bytes, once per stream, and every
//! inflater takes them. Header blocks that come back carry nothing we need and are skipped.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use crate::StreamError;

const CONTROL_BIT: u32 = 0x8000_0000;
const VERSION: u32 = 3;
const SYN_STREAM: u16 = 1;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const FLAG_FIN: u8 = 1;
const HEADER_BYTES: usize = 8;
/// A frame above this is a broken peer: runtimes send at most 32 KiB at a time.
const FRAME_BYTES_MAX: usize = 1 << 20;
/// What one DATA frame of ours carries at most.
pub const DATA_BYTES_MAX: usize = 32 << 10;

/// A frame that we send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Send {
    Open {
        stream: u32,
        headers: Vec<(&'static str, String)>,
    },
    Data {
        stream: u32,
        bytes: Bytes,
    },
    /// No more data on this stream.
    End {
        stream: u32,
    },
    Pong {
        id: u32,
    },
}

/// A frame that we understand; others are skipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Receive {
    Data { stream: u32, bytes: Bytes, end: bool },
    Reset { stream: u32 },
    Ping { id: u32 },
    GoAway,
    Skipped,
}

/// Frames on a byte stream.
#[derive(Debug, Default)]
pub struct Codec {
    /// The zlib stream of headers has begun: its two opening bytes are sent once per connection.
    headers_begun: bool,
}

impl Codec {
    fn header_block(&mut self, headers: &[(&'static str, String)]) -> Vec<u8> {
        let mut plain = Vec::new();
        plain.put_u32(headers.len() as u32);
        for (name, value) in headers {
            for part in [name.as_bytes(), value.as_bytes()] {
                plain.put_u32(part.len() as u32);
                plain.put_slice(part);
            }
        }
        let mut block = Vec::with_capacity(plain.len() + 12);
        if !self.headers_begun {
            self.headers_begun = true;
            block.put_slice(&[0x78, 0x01]);
        }
        let length = plain.len() as u16;
        block.put_u8(0);
        block.put_u16_le(length);
        block.put_u16_le(!length);
        block.put_slice(&plain);
        // An empty stored block is zlib's sync flush: inflaters hand out what they have when they meet it.
        block.put_slice(&[0, 0, 0, 0xff, 0xff]);
        block
    }
}

fn control(out: &mut BytesMut, kind: u16, flags: u8, length: usize) {
    out.put_u32(CONTROL_BIT | VERSION << 16 | u32::from(kind));
    out.put_u32(u32::from(flags) << 24 | length as u32);
}

impl Encoder<Send> for Codec {
    type Error = io::Error;

    fn encode(&mut self, frame: Send, out: &mut BytesMut) -> io::Result<()> {
        match frame {
            Send::Open { stream, headers } => {
                let block = self.header_block(&headers);
                control(out, SYN_STREAM, 0, block.len() + 10);
                out.put_u32(stream);
                out.put_u32(0);
                out.put_u16(0);
                out.put_slice(&block);
            }
            Send::Data { stream, bytes } => {
                out.put_u32(stream);
                out.put_u32(bytes.len() as u32);
                out.put_slice(&bytes);
            }
            Send::End { stream } => {
                out.put_u32(stream);
                out.put_u32(u32::from(FLAG_FIN) << 24);
            }
            Send::Pong { id } => {
                control(out, PING, 0, 4);
                out.put_u32(id);
            }
        }
        Ok(())
    }
}

impl Decoder for Codec {
    type Item = Receive;
    type Error = StreamError;

    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Receive>, StreamError> {
        if input.len() < HEADER_BYTES {
            return Ok(None);
        }
        let first = u32::from_be_bytes([input[0], input[1], input[2], input[3]]);
        let second = u32::from_be_bytes([input[4], input[5], input[6], input[7]]);
        let length = (second & 0x00ff_ffff) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(StreamError::Protocol("a SPDY frame above 1 MiB"));
        }
        if input.len() < HEADER_BYTES + length {
            input.reserve(HEADER_BYTES + length - input.len());
            return Ok(None);
        }
        input.advance(HEADER_BYTES);
        let mut payload = input.split_to(length).freeze();
        if first & CONTROL_BIT == 0 {
            let end = (second >> 24) as u8 & FLAG_FIN != 0;
            return Ok(Some(Receive::Data { stream: first, bytes: payload, end }));
        }
        Ok(Some(match (first & 0xffff) as u16 {
            RST_STREAM if length >= 4 => Receive::Reset { stream: payload.get_u32() },
            PING if length >= 4 => Receive::Ping { id: payload.get_u32() },
            GOAWAY => Receive::GoAway,
            _ => Receive::Skipped,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn header_blocks_share_one_zlib_stream_and_are_flushed() {
        let mut codec = Codec::default();
        let mut sent = |stream| {
            let mut out = BytesMut::new();
            codec.encode(Send::Open { stream, headers: vec![("a", "b".to_owned())] }, &mut out).unwrap();
            hex(&out)
        };
        let block = "000e00f1ff0000000100000001610000000162000000ffff";
        assert_eq!(sent(1), format!("80030001{:08x}00000001000000000000{}{block}", 10 + 2 + 24, "7801"));
        assert_eq!(sent(3), format!("80030001{:08x}00000003000000000000{block}", 10 + 24));
    }

    #[test]
    fn frames_arrive_in_pieces() {
        let mut codec = Codec::default();
        let whole = [0, 0, 0, 3, 1, 0, 0, 2, b'h', b'i', 0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 9];
        let mut input = BytesMut::new();
        let mut frames = Vec::new();
        for byte in whole {
            input.put_u8(byte);
            frames.extend(codec.decode(&mut input).unwrap());
        }
        let data = Receive::Data { stream: 3, bytes: Bytes::from_static(b"hi"), end: true };
        assert_eq!(frames, [data, Receive::Ping { id: 9 }]);
    }

    #[test]
    fn an_endless_frame_is_refused() {
        let mut input = BytesMut::from(&[0, 0, 0, 1, 0, 0xff, 0xff, 0xff][..]);
        assert!(matches!(Codec::default().decode(&mut input), Err(StreamError::Protocol(_))));
    }
}
