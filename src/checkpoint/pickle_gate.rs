//! Reads the names that a pickle asks Python to import, before anything interprets it.
//!
//! A pickle is a small program: `GLOBAL os system`, `REDUCE`. `pytorch-reader` never executes it; it keeps calls
//! that it does not know as inert objects and drops them. So such a file would load as if it were honest.
//! This gate walks the opcodes once and refuses it, as `torch.load(weights_only=True)` does:
//!
//! - names on a short list (tensor rebuilding, storages, dtypes, plain containers, `torch.nn`) may be used freely, and so may those of
//!   programs whose checkpoints hold objects of their own beside the weights;
//! - any other name may only be the class of `cls.__new__(cls)` (the opcodes `EMPTY_TUPLE`, `NEWOBJ` right after
//!   it), which is how a whole saved module names the classes of its parts;
//! - everything else is refused, by name.

use std::collections::HashMap;
use std::io::BufRead;
use std::rc::Rc;

use super::instruction::{self, MAX_INSTRUCTIONS, MAX_TEXT};

/// What the gate knows of a stack or memo slot. An instruction of one byte may store it again: a copy takes no more memory.
#[derive(Clone)]
enum Slot {
    Text(Rc<[u8]>),
    /// A name that is not on the list.
    Stranger(Rc<str>),
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
    let mut pending: Option<(Pending, Rc<str>)> = None;
    // The class of the object that was saved as a whole, if one was.
    let mut whole: Option<Rc<str>> = None;
    for _ in 0..MAX_INSTRUCTIONS {
        let (op, argument) = instruction::next(reader, MAX_TEXT)?;
        let index = instruction::memo_index(op, &argument, memo.len());
        let is_put = instruction::is_put(op);
        if let Some((stage, name)) = pending.take() {
            pending = match (stage, op) {
                (Pending::Named, _) if is_put => Some((stage, name)),
                (Pending::Named, b')') => Some((Pending::WithArguments, name)),
                (Pending::WithArguments, 0x81) => {
                    whole.get_or_insert(name);
                    None
                }
                _ => return Err(refused(&name, whole.as_deref())),
            };
        }
        if is_put {
            memo.insert(index, top.clone());
            continue;
        }
        let pushed = match op {
            b'.' => return Ok(()),
            b'V' | b'U' | b'T' | b'X' | 0x8c | 0x8d => Slot::Text(argument.into()),
            b'g' | b'h' | b'j' => memo.get(&index).cloned().unwrap_or(Slot::Other),
            b'c' => named(&argument),
            0x93 => match (&below, &top) {
                (Slot::Text(module), Slot::Text(name)) => named(&instruction::global(module, name)?),
                _ => return Err("its pickle computes the name of a global".to_string()),
            },
            _ => Slot::Other,
        };
        if let Slot::Stranger(name) = &pushed {
            pending = Some((Pending::Named, name.clone()));
        }
        below = std::mem::replace(&mut top, pushed);
    }
    Err(instruction::too_many())
}

fn refused(name: &str, whole: Option<&str>) -> String {
    let whole = whole.map(|class| format!(" for an object of `{class}`")).unwrap_or_default();
    format!(
        "its pickle asks Python to run or use `{name}`{whole}, which has no place among weights; nothing was executed"
    )
}

/// The slot of a global, given as `module name`.
fn named(global: &[u8]) -> Slot {
    let global = String::from_utf8_lossy(global);
    let (module, name) = global.split_once(' ').unwrap_or((&global, ""));
    if is_listed(module, name) { Slot::Other } else { Slot::Stranger(format!("{module}.{name}").into()) }
}

/// Packages that pickle their settings together with the weights.
const PROGRAMS: [&str; 2] = ["recbole.", "rectools."];

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
        // RecBole's settings name the class that read them.
        ("yaml.loader", name) => name == "FullLoader",
        (module, _) if PROGRAMS.iter().any(|package| module.starts_with(package)) => true,
        (module, _) => module == "torch.nn" || module.starts_with("torch.nn.") || module == "torch._C._nn",
    }
}
