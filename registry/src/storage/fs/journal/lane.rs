//! One file of the journal: a header with a number and a nonce, then records.
//!
//! ```text
//! header  number (8 bytes), nonce (16), SHA-256 of both
//! record  length (4), SHA-256 of the nonce, the length and the content's SHA-256, content
//! ```
//!
//! The file is filled with zeros some way ahead and never gets shorter, so that a record that is appended changes nothing
//! but bytes, and syncing it costs no more than these.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
    sync::Arc,
};

use sha2::{Digest as _, Sha256};

use crate::storage::{Error, IoContext as _, fs::disk::Disk};

const HEADER: usize = 8 + 16 + 32;
const FRAME: usize = 4 + 32;
/// Read at once.
const PIECE: usize = 64 << 10;
/// Filled with zeros at once.
const AHEAD: u64 = 256 << 10;
/// Bytes of the longest record.
pub(super) const MOST: u64 = 16 << 20;

type Nonce = [u8; 16];

#[derive(Debug)]
pub(super) struct Lane {
    at: Writer,
    /// Changes whose records are here and that are not done yet.
    pub(super) applying: usize,
}

/// For who writes, outside the lock.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    file: Arc<File>,
    /// Higher than that of the other file where what is here is newer; zero where nothing can be here.
    number: u64,
    nonce: Nonce,
    /// Where the next record goes.
    end: u64,
    length: u64,
}

/// A record as it is written.
#[derive(Debug)]
pub(super) struct Sealed {
    length: u32,
    hash: [u8; 32],
    bytes: Vec<u8>,
}

/// Why records were not written.
#[derive(Debug)]
pub(super) enum Unwritten {
    Nothing(io::Error),
    /// Any of them may be there, or not.
    Perhaps(io::Error),
}

impl Lane {
    /// Opens a file, making it where it is not there, and what it holds. Where that is anything, it has to be begun anew
    /// before something is written.
    pub(super) fn open(disk: &Disk, path: &Path) -> Result<(Self, Records<BufReader<File>>), Error> {
        let file = disk.open_or_create(path).at("open", path)?;
        let read = || {
            let file = File::open(path)?;
            let length = file.metadata()?.len();
            Ok((length, Records::of(BufReader::with_capacity(PIECE, file), length)?))
        };
        let (length, (number, records)) = read().at("read", path)?;
        let at = Writer { file: Arc::new(file), number, nonce: records.nonce, end: HEADER as u64, length };
        Ok((Self { at, applying: 0 }, records))
    }

    pub(super) fn number(&self) -> u64 {
        self.at.number
    }

    pub(super) fn end(&self) -> u64 {
        self.at.end
    }

    pub(super) fn is_empty(&self) -> bool {
        self.at.end == HEADER as u64
    }

    pub(super) fn writer(&self) -> Writer {
        self.at.clone()
    }

    /// What a writer has come to.
    pub(super) fn wrote(&mut self, writer: Writer) {
        self.at = writer;
    }
}

impl Writer {
    /// Begins anew. What was here counts no more when this returns.
    pub(super) fn begin(&mut self, disk: &Disk, number: u64) -> io::Result<()> {
        let mut nonce = Nonce::default();
        getrandom::fill(&mut nonce)?;
        disk.write_at(&self.file, 0, &header(number, &nonce))?;
        disk.sync_data(&self.file)?;
        let (end, length) = (HEADER as u64, self.length.max(HEADER as u64));
        (self.number, self.nonce, self.end, self.length) = (number, nonce, end, length);
        Ok(())
    }

    /// Appends records; they are on the disk when this returns.
    pub(super) fn write(&mut self, disk: &Disk, records: &[Sealed]) -> Result<(), Unwritten> {
        let mut bytes = Vec::with_capacity(records.iter().map(|record| FRAME + record.bytes.len()).sum());
        for record in records {
            record.frame(&self.nonce, &mut bytes);
        }
        let end = self.end + bytes.len() as u64;
        if end > self.length {
            let length = end.next_multiple_of(AHEAD);
            let zeros = vec![0; usize::try_from(length - self.length).unwrap_or_default()];
            disk.write_at(&self.file, self.length, &zeros).map_err(Unwritten::Nothing)?;
            self.length = length;
        }
        disk.write_at(&self.file, self.end, &bytes).map_err(Unwritten::Perhaps)?;
        disk.sync_data(&self.file).map_err(Unwritten::Perhaps)?;
        self.end = end;
        Ok(())
    }
}

impl Sealed {
    /// None where they are too many for one record.
    pub(super) fn new(bytes: Vec<u8>) -> Option<Self> {
        let length = u32::try_from(bytes.len()).ok().filter(|length| u64::from(*length) <= MOST)?;
        Some(Self { length, hash: Sha256::digest(&bytes).into(), bytes })
    }

    pub(super) fn len(&self) -> u64 {
        self.length.into()
    }

    fn frame(&self, nonce: &Nonce, to: &mut Vec<u8>) {
        let length = self.length.to_le_bytes();
        to.extend(length);
        to.extend(bind(nonce, length, &self.hash));
        to.extend(&self.bytes);
    }
}

/// Makes a record one of this file as it was begun last.
fn bind(nonce: &Nonce, length: [u8; 4], hash: &[u8; 32]) -> [u8; 32] {
    Sha256::new().chain_update(nonce).chain_update(length).chain_update(hash).finalize().into()
}

/// Begins files anew that hold no records.
pub(super) fn begin_both(disk: &Disk, lanes: &mut [Lane; 2]) -> io::Result<()> {
    let mut number = lanes.iter().map(Lane::number).max().unwrap_or_default();
    for lane in lanes {
        number += 1;
        let mut writer = lane.writer();
        writer.begin(disk, number)?;
        lane.wrote(writer);
    }
    Ok(())
}

/// What a file holds, one record at a time.
#[derive(Debug)]
pub(super) struct Records<R> {
    from: R,
    nonce: Nonce,
    /// Bytes that may be records.
    left: u64,
}

impl<R: Read> Records<R> {
    /// What is in a file of this length, and the file's number. Nothing where the header is torn: it is written only when
    /// nothing in the file counts any more.
    fn of(mut from: R, length: u64) -> io::Result<(u64, Self)> {
        let mut header = [0; HEADER];
        if length >= HEADER as u64 {
            from.read_exact(&mut header)?;
        }
        let read = read_header(&header);
        let left = read.map_or(0, |_| length - HEADER as u64);
        let (number, nonce) = read.unwrap_or_default();
        Ok((number, Self { from, nonce, left }))
    }

    /// None from the first one on that is torn.
    pub(super) fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let Some(most) = self.left.checked_sub(FRAME as u64) else { return Ok(None) };
        self.left = 0;
        let (mut length, mut bound) = ([0; 4], [0; 32]);
        self.from.read_exact(&mut length)?;
        self.from.read_exact(&mut bound)?;
        let bytes = u64::from(u32::from_le_bytes(length));
        if bytes > most.min(MOST) {
            return Ok(None);
        }
        let mut record = vec![0; usize::try_from(bytes).unwrap_or_default()];
        self.from.read_exact(&mut record)?;
        if bind(&self.nonce, length, &Sha256::digest(&record).into()) != bound {
            return Ok(None);
        }
        self.left = most - bytes;
        Ok(Some(record))
    }
}

fn header(number: u64, nonce: &Nonce) -> Vec<u8> {
    let mut header = number.to_le_bytes().to_vec();
    header.extend(nonce);
    let hash = Sha256::digest(&header);
    header.extend(hash);
    header
}

fn read_header(bytes: &[u8; HEADER]) -> Option<(u64, Nonce)> {
    let (number, rest) = bytes.split_first_chunk()?;
    let nonce = rest.first_chunk()?;
    let number = u64::from_le_bytes(*number);
    (header(number, nonce) == bytes).then_some((number, *nonce))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDS: [&[u8]; 3] = [b"one", b"", b"three"];

    fn file(number: u64, nonce: &Nonce, records: &[&[u8]]) -> Vec<u8> {
        let mut bytes = header(number, nonce);
        for record in records {
            Sealed::new(record.to_vec()).unwrap().frame(nonce, &mut bytes);
        }
        bytes
    }

    /// The number, the nonce and all records of a file.
    fn read(bytes: &[u8]) -> (u64, Nonce, Vec<Vec<u8>>) {
        let (number, mut records) = Records::of(bytes, bytes.len() as u64).unwrap();
        let all = std::iter::from_fn(|| records.next().unwrap()).collect();
        (number, records.nonce, all)
    }

    #[test]
    fn a_file_that_is_torn_at_any_byte_holds_what_is_whole_before() {
        let (nonce, former) = ([7; 16], file(1, &[6; 16], &[b"two", b"!", b"former"]));
        let bytes = file(2, &nonce, &RECORDS);
        assert_eq!(read(&bytes), (2, nonce, RECORDS.map(<[u8]>::to_vec).to_vec()));
        let ends = [HEADER, HEADER + FRAME + 3, HEADER + 2 * FRAME + 3, HEADER + 3 * FRAME + 8];
        assert_eq!(ends[3], bytes.len());
        for torn in 0..bytes.len() {
            // Behind it is what was there before, or zeros, or nothing.
            let zeros = vec![0; bytes.len()];
            for rest in [&former[torn.min(former.len())..], &zeros[torn..], &[]] {
                let held = [&bytes[..torn], rest].concat();
                let (number, _, records) = read(&held);
                let whole = ends.iter().filter(|end| torn >= **end).count();
                assert!(number != 2 || records == RECORDS[..whole - 1], "torn at {torn}");
                assert!(whole == 0 || number == 2, "torn at {torn}");
            }
        }
    }

    #[test]
    fn any_wrong_byte_ends_a_file() {
        let bytes = file(2, &[7; 16], &RECORDS);
        for place in HEADER..bytes.len() {
            let mut wrong = bytes.clone();
            wrong[place] ^= 1;
            assert!(read(&wrong).2.len() < RECORDS.len(), "byte {place}");
        }
    }
}
