//! Request bodies: read and decompressed within the stated limit, so that no bomb goes off.

use std::io::Read;

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::error::{Error, Kind, Result};

/// Bodies from this size on are decompressed on a thread of their own.
const INLINE_MAX: usize = 64 * 1024;

#[derive(Clone, Copy)]
enum Coding {
    Identity,
    Gzip,
    Zstd,
}

/// Reads the whole body; `max` bounds it before and after decompression.
///
/// # Errors
/// `Kind::TooLarge`, `Kind::MediaType` for an unknown coding, `Kind::Invalid` for a body that breaks off.
pub(super) async fn read(headers: &HeaderMap, body: Body, max: usize) -> Result<Bytes> {
    let coding = coding(headers)?;
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > max) {
        return Err(too_large(max));
    }
    let bytes = collected(Limited::new(body, max), announced.unwrap_or(0), max).await?;
    match coding {
        Coding::Identity => Ok(bytes),
        _ if bytes.len() < INLINE_MAX => decompress(coding, &bytes, max),
        _ => tokio::task::spawn_blocking(move || decompress(coding, &bytes, max)).await.map_err(Error::internal)?,
    }
}

/// All pieces in one. They are not collected first: a large body would be held twice.
async fn collected(mut body: Limited<Body>, announced: usize, max: usize) -> Result<Bytes> {
    let (mut first, mut all) = (Bytes::new(), BytesMut::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| match error.is::<LengthLimitError>() {
            true => too_large(max),
            false => Error::invalid("The request body broke off.").caused_by(error),
        })?;
        let Ok(piece) = frame.into_data() else { continue };
        if first.is_empty() && all.is_empty() {
            first = piece;
            continue;
        }
        if all.is_empty() {
            all.reserve(announced.max(first.len() + piece.len()));
            all.extend_from_slice(&std::mem::take(&mut first));
        }
        all.extend_from_slice(&piece);
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

fn coding(headers: &HeaderMap) -> Result<Coding> {
    let mut values = headers.get_all(CONTENT_ENCODING).iter();
    let Some(value) = values.next() else { return Ok(Coding::Identity) };
    match (value.to_str().unwrap_or_default().trim().to_ascii_lowercase().as_str(), values.next()) {
        ("identity" | "", None) => Ok(Coding::Identity),
        ("gzip" | "x-gzip", None) => Ok(Coding::Gzip),
        ("zstd", None) => Ok(Coding::Zstd),
        _ => Err(Error::new(Kind::MediaType, "Content-Encoding may be gzip, zstd or identity, once.")),
    }
}

fn decompress(coding: Coding, bytes: &[u8], max: usize) -> Result<Bytes> {
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    let mut out = Vec::new();
    let read = match coding {
        Coding::Identity => return Ok(Bytes::copy_from_slice(bytes)),
        Coding::Gzip => flate2::read::MultiGzDecoder::new(bytes).take(limit).read_to_end(&mut out),
        Coding::Zstd => zstd::stream::read::Decoder::with_buffer(bytes)
            .and_then(|decoder| decoder.take(limit).read_to_end(&mut out)),
    };
    read.map_err(|error| Error::invalid("The request body is not what Content-Encoding says.").caused_by(error))?;
    if out.len() > max {
        return Err(too_large(max));
    }
    Ok(out.into())
}

fn too_large(max: usize) -> Error {
    Error::new(Kind::TooLarge, format!("The request body is larger than the {max} bytes this server takes."))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn with_coding(coding: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, coding.parse().expect("a header"));
        headers
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).expect("memory takes it");
        encoder.finish().expect("memory takes it")
    }

    #[tokio::test]
    async fn codings_are_undone() {
        let plain = vec![b'x'; 100_000];
        for (coding, bytes) in [
            ("identity", plain.clone()),
            ("gzip", gzip(&plain)),
            ("zstd", zstd::encode_all(plain.as_slice(), 3).expect("memory takes it")),
        ] {
            let read = read(&with_coding(coding), Body::from(bytes), 100_000).await.expect("within the limit");
            assert_eq!(read, plain, "{coding}");
        }
    }

    #[tokio::test]
    async fn a_body_in_pieces_is_put_together() {
        let pieces = |texts: &[&'static str]| {
            let pieces: Vec<std::result::Result<&'static str, std::io::Error>> =
                texts.iter().copied().map(Ok).collect();
            Body::from_stream(futures_util::stream::iter(pieces))
        };
        let mut announced = HeaderMap::new();
        announced.insert(CONTENT_LENGTH, "6".parse().expect("a header"));
        for headers in [HeaderMap::new(), announced] {
            for (texts, whole) in [(&["", "ab", "cd", "", "ef"][..], "abcdef"), (&["ab"], "ab"), (&[], "")] {
                assert_eq!(read(&headers, pieces(texts), 6).await.expect("within the limit"), whole);
            }
            let long = read(&headers, pieces(&["abc", "def", "g"]), 6).await;
            assert_eq!(long.err().map(|error| error.kind), Some(Kind::TooLarge));
        }
    }

    #[tokio::test]
    async fn bombs_and_broken_bodies_are_refused() {
        let bomb = gzip(&vec![0u8; 1_000_000]);
        assert!(bomb.len() < 2_000);
        let kind = |result: Result<Bytes>| result.err().map(|error| error.kind);
        assert_eq!(kind(read(&with_coding("gzip"), Body::from(bomb), 100_000).await), Some(Kind::TooLarge));
        assert_eq!(kind(read(&with_coding("gzip"), Body::from("no gzip"), 100).await), Some(Kind::Invalid));
        assert_eq!(kind(read(&with_coding("br"), Body::from(""), 100).await), Some(Kind::MediaType));
        assert_eq!(kind(read(&HeaderMap::new(), Body::from("four"), 3).await), Some(Kind::TooLarge));
    }
}
