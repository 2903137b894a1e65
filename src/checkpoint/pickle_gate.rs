//! Reads the names that a pickle asks Python to import, before anything interprets it.
//!
//! A pickle is a small program: `GLOBAL os system`, `REDUCE`. `pytorch-reader` never executes it; it keeps calls
//! that it does not know as inert objects and drops them. So such a file would load as if it were honest.
//! This gate walks the opcodes once and refuses it, as `torch.load(weights_only=True)` does:
//!
//! - names on a short list (tensor rebuilding, storages, dtypes, plain containers, `torch.nn`) may be used freely;
//! - any other name may only be the class of `cls.__new__(cls)` (the opcodes `EMPTY_TUPLE`, `NEWOBJ` right after
//!   it), which is how a whole saved module names the classes of its parts;
//! - everything else is refused, by name.

use std::collections::HashMap;
use std::io::{self, BufRead, Read};

/// Longest text that is looked at; no module, class or attribute name is longer.
const MAX_TEXT: u64 = 1 << 16;

/// Longest program: some fifty thousand tensors. An instruction is one byte of file and a hundred of memory.
const MAX_INSTRUCTIONS: usize = 2_000_000;

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

/// What the gate knows of a stack or memo slot.
#[derive(Clone)]
enum Slot {
    Text(Vec<u8>),
    /// A name that is not on the list.
    Stranger(String),
    Other,
}

/// How far an unlisted name has come towards `cls.__new__(cls)`.
#[derive(Clone, Copy, PartialEq)]
enum Pending {
    Named,
    WithArguments,
}

/// Checks the next `pickles` pickles of `reader`; `Err` says what is wrong with them.
pub(super) fn check(reader: &mut impl BufRead, pickles: usize) -> Result<(), String> {
    (0..pickles).try_for_each(|_| check_one(reader))
}

fn check_one(reader: &mut impl BufRead) -> Result<(), String> {
    let mut memo: HashMap<u32, Slot> = HashMap::new();
    let (mut below, mut top) = (Slot::Other, Slot::Other);
    let mut pending: Option<(Pending, String)> = None;
    for _ in 0..MAX_INSTRUCTIONS {
        let mut op = [0];
        reader.read_exact(&mut op).map_err(unreadable)?;
        let [op] = op;
        let argument = match operand(op).ok_or_else(|| format!("its pickle has the unknown opcode 0x{op:02x}"))? {
            Operand::Nothing => Vec::new(),
            Operand::Bytes(n) => take(reader, n)?,
            Operand::Line => line(reader)?,
            Operand::TwoLines => [line(reader)?, b" ".to_vec(), line(reader)?].concat(),
            Operand::Sized(n) => {
                let length = little_endian(&take(reader, n as u64)?);
                if length <= MAX_TEXT { take(reader, length)? } else { skip(reader, length)? }
            }
        };
        let index = match op {
            b'g' | b'p' => str::from_utf8(&argument).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(u32::MAX),
            0x94 => memo.len() as u32,
            _ => little_endian(&argument) as u32,
        };
        let is_put = matches!(op, b'p' | b'q' | b'r' | 0x94);
        if let Some((stage, name)) = pending.take() {
            pending = match (stage, op) {
                (Pending::Named, _) if is_put => Some((stage, name)),
                (Pending::Named, b')') => Some((Pending::WithArguments, name)),
                (Pending::WithArguments, 0x81) => None,
                _ => return Err(refused(&name)),
            };
        }
        if is_put {
            memo.insert(index, top.clone());
            continue;
        }
        let pushed = match op {
            b'.' => return Ok(()),
            b'V' | b'U' | b'T' | b'X' | 0x8c | 0x8d => Slot::Text(argument),
            b'g' | b'h' | b'j' => memo.get(&index).cloned().unwrap_or(Slot::Other),
            b'c' => named(&argument),
            0x93 => match (&below, &top) {
                (Slot::Text(module), Slot::Text(name)) => named(&[module, b" ".as_slice(), name].concat()),
                _ => return Err("its pickle computes the name of a global".to_string()),
            },
            _ => Slot::Other,
        };
        if let Slot::Stranger(name) = &pushed {
            pending = Some((Pending::Named, name.clone()));
        }
        below = std::mem::replace(&mut top, pushed);
    }
    Err(format!("its pickle has more than {MAX_INSTRUCTIONS} instructions"))
}

fn refused(name: &str) -> String {
    format!("its pickle asks Python to run or use `{name}`, which has no place among weights; nothing was executed")
}

/// The slot of a global, given as `module name`.
fn named(global: &[u8]) -> Slot {
    let global = String::from_utf8_lossy(global);
    let (module, name) = global.split_once(' ').unwrap_or((&global, ""));
    if is_listed(module, name) { Slot::Other } else { Slot::Stranger(format!("{module}.{name}")) }
}

fn is_listed(module: &str, name: &str) -> bool {
    match (module, name) {
        // Protocol 4 allows a path here, which could leave the module.
        (_, name) if name.contains('.') => false,
        ("collections", "OrderedDict") | ("_codecs", "encode") | ("torch.serialization", "_get_layout") => true,
        ("builtins" | "__builtin__", name) => [
            "set",
            "frozenset",
            "dict",
            "list",
            "tuple",
            "int",
            "float",
            "complex",
            "str",
            "bytes",
            "bytearray",
            "bool",
        ]
        .contains(&name),
        ("torch", name) => {
            name.ends_with("Storage")
                || ["float", "int", "uint", "bfloat", "complex", "double", "half", "long", "short", "bool"]
                    .contains(&name.trim_end_matches(|c: char| c.is_ascii_digit()))
                || ["Size", "device", "dtype", "Tensor"].contains(&name)
        }
        ("torch.storage", name) => name.ends_with("Storage"),
        ("torch._utils", name) => name.starts_with("_rebuild_"),
        ("torch._tensor", name) => name == "_rebuild_from_type_v2",
        ("numpy", name) => ["dtype", "ndarray"].contains(&name),
        ("numpy.core.multiarray" | "numpy._core.multiarray", name) => ["scalar", "_reconstruct"].contains(&name),
        (module, _) => module == "torch.nn" || module.starts_with("torch.nn.") || module == "torch._C._nn",
    }
}

fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

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
