//! Instructions of pickles: opcodes and what follows them.

use std::io::{self, BufRead, Read};

/// Longest program: some fifty thousand tensors. An instruction is one byte of file and a hundred of memory.
pub(super) const MAX_INSTRUCTIONS: usize = 2_000_000;

/// What is wrong with a longer one.
pub(super) fn too_many() -> String {
    format!("its pickle has more than {MAX_INSTRUCTIONS} instructions")
}

/// What follows an opcode.
enum Operand {
    Nothing,
    Bytes(u64),
    Line,
    TwoLines,
    /// A little-endian length of that many bytes, then as many bytes.
    Sized(usize),
}

fn operand(op: u8) -> Option<Operand> {
    Some(match op {
        b'('
        | b'.'
        | b'0'
        | b'1'
        | b'2'
        | b'N'
        | b'R'
        | b'b'
        | b'd'
        | b'l'
        | b't'
        | b's'
        | b'a'
        | b')'
        | b']'
        | b'}'
        | b'e'
        | b'u'
        | b'Q'
        | 0x81
        | 0x85..=0x89
        | 0x8f..=0x94 => Operand::Nothing,
        b'K' | b'h' | b'q' | 0x80 => Operand::Bytes(1),
        b'M' => Operand::Bytes(2),
        b'J' | b'j' | b'r' => Operand::Bytes(4),
        b'G' | 0x95 => Operand::Bytes(8),
        b'I' | b'L' | b'F' | b'V' | b'g' | b'p' | b'P' => Operand::Line,
        b'c' => Operand::TwoLines,
        b'U' | b'C' | 0x8a | 0x8c => Operand::Sized(1),
        b'T' | b'X' | b'B' | 0x8b => Operand::Sized(4),
        0x8d | 0x8e | 0x96 => Operand::Sized(8),
        _ => return None,
    })
}

/// Reads an opcode and its argument: the bytes of a text or number, the two lines of a global with a space between. An argument with
/// its own length is passed over where that is above `longest`, and is empty then.
pub(super) fn next(reader: &mut impl BufRead, longest: u64) -> Result<(u8, Vec<u8>), String> {
    let mut op = [0];
    reader.read_exact(&mut op).map_err(unreadable)?;
    let [op] = op;
    let argument = match operand(op).ok_or_else(|| format!("its pickle has the unknown opcode 0x{op:02x}"))? {
        Operand::Nothing => Vec::new(),
        Operand::Bytes(n) => take(reader, n)?,
        Operand::Line => line(reader)?,
        Operand::TwoLines => global(&line(reader)?, &line(reader)?)?,
        Operand::Sized(n) => {
            let length = little_endian(&take(reader, n as u64)?);
            if length <= longest { take(reader, length)? } else { skip(reader, length)? }
        }
    };
    Ok((op, argument))
}

/// Module and name of a global, with a space between.
pub(super) fn global(module: &[u8], name: &[u8]) -> Result<Vec<u8>, String> {
    match module.len() + name.len() <= MAX_NAME {
        true => Ok([module, b" ", name].concat()),
        false => Err(format!("its pickle has a name of more than {MAX_NAME} bytes")),
    }
}

/// The place in the memo that an instruction names, where `n_stored` have been stored so far.
pub(super) fn memo_index(op: u8, argument: &[u8], n_stored: usize) -> u32 {
    match op {
        b'g' | b'p' => str::from_utf8(argument).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(u32::MAX),
        0x94 => n_stored as u32,
        _ => little_endian(argument) as u32,
    }
}

/// Whether an instruction stores the top of the stack in the memo.
pub(super) fn is_put(op: u8) -> bool {
    matches!(op, b'p' | b'q' | b'r' | 0x94)
}

pub(super) fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

/// Longest line that is looked at; no module, class or attribute name is longer.
pub(super) const MAX_TEXT: u64 = 1 << 16;

/// Longest name of a global with its module: a few bytes of a file make another one of two texts that are there already.
const MAX_NAME: usize = 512;

fn take(reader: &mut impl BufRead, n: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    reader.by_ref().take(n).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 == n { Ok(bytes) } else { Err(ended()) }
}

/// Passes over text too long to be a name.
fn skip(reader: &mut impl BufRead, n: u64) -> Result<Vec<u8>, String> {
    let skipped = io::copy(&mut reader.by_ref().take(n), &mut io::sink()).map_err(unreadable)?;
    if skipped == n { Ok(Vec::new()) } else { Err(ended()) }
}

fn line(reader: &mut impl BufRead) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    reader.by_ref().take(MAX_TEXT).read_until(b'\n', &mut bytes).map_err(unreadable)?;
    if bytes.pop() == Some(b'\n') { Ok(bytes) } else { Err(ended()) }
}

fn unreadable(error: io::Error) -> String {
    if error.kind() == io::ErrorKind::UnexpectedEof { ended() } else { format!("its pickle cannot be read: {error}") }
}

fn ended() -> String {
    "its pickle ends too early".to_string()
}
