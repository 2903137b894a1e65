//! What a pickle holds beside tensors: settings and ids. Nothing is built: an object of a class is its name, its arguments and its state.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::BufRead;
use std::sync::Arc;

use super::instruction::{self, MAX_INSTRUCTIONS, little_endian};

/// Longest text or array of bytes that is kept.
const LONGEST: u64 = 1 << 28;

/// Classes whose objects are dictionaries.
const DICTIONARIES: [&str; 3] = ["collections.OrderedDict", "collections.defaultdict", "builtins.dict"];

/// All values of a pickle. They refer to each other by their numbers: a value that is used often is stored once.
#[derive(Debug)]
pub struct Pickle {
    nodes: Vec<Node>,
    root: usize,
}

#[derive(Clone, Debug)]
enum Node {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    Sequence(Vec<usize>),
    Dict(Vec<(usize, usize)>),
    Object {
        class: Arc<str>,
        arguments: Option<usize>,
        state: Option<usize>,
    },
    /// A tensor's storage, a number beyond 64 bits.
    Other,
}

/// A value of a [`Pickle`].
#[derive(Clone, Copy, Debug)]
pub struct PickleValue<'a> {
    pickle: &'a Pickle,
    node: usize,
}

impl Pickle {
    /// The whole.
    pub fn root(&self) -> PickleValue<'_> {
        PickleValue { pickle: self, node: self.root }
    }
}

impl<'a> PickleValue<'a> {
    fn of(self, node: usize) -> PickleValue<'a> {
        PickleValue { node, ..self }
    }

    fn node(self) -> &'a Node {
        self.pickle.nodes.get(self.node).unwrap_or(&Node::Other)
    }

    /// The entry of a dictionary, or the attribute of an object, `key`.
    pub fn get(self, key: &str) -> Option<PickleValue<'a>> {
        match self.node() {
            // The last of several entries counts, as in Python.
            Node::Dict(entries) => {
                let found = entries.iter().rev().find(|(name, _)| self.of(*name).text() == Some(key));
                found.map(|(_, value)| self.of(*value))
            }
            // Objects have dictionaries for states; the state of such a state is not looked at.
            Node::Object { state: Some(state), .. } => match self.of(*state).node() {
                Node::Dict(_) => self.of(*state).get(key),
                _ => None,
            },
            _ => None,
        }
    }

    /// A text.
    pub fn text(self) -> Option<&'a str> {
        match self.node() {
            Node::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A whole number, also one of numpy's.
    pub fn int(self) -> Option<i64> {
        match self.node() {
            Node::Int(value) => Some(*value),
            Node::Object { class, arguments: Some(arguments), .. } if class.ends_with(".multiarray.scalar") => {
                match self.of(*arguments).items().as_slice() {
                    [dtype, bytes] => Some(dtype.int64()?(*bytes.bytes()?.first_chunk()?)),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// A number.
    pub fn float(self) -> Option<f64> {
        match self.node() {
            Node::Float(value) => Some(*value),
            Node::Int(value) => Some(*value as f64),
            _ => None,
        }
    }

    /// True or false.
    pub fn bool(self) -> Option<bool> {
        match self.node() {
            Node::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The values of a list or tuple; none of anything else.
    pub fn items(self) -> Vec<PickleValue<'a>> {
        match self.node() {
            Node::Sequence(items) => items.iter().map(|item| self.of(*item)).collect(),
            _ => Vec::new(),
        }
    }

    /// The elements of a one-dimensional numpy array as texts: of objects (texts and whole numbers), or of 64-bit integers.
    pub fn array_of_names(self) -> Option<Vec<String>> {
        let Node::Object { class, state: Some(state), .. } = self.node() else { return None };
        if !class.ends_with(".multiarray._reconstruct") {
            return None;
        }
        // Version, shape, element type, order, data.
        let [_, _, dtype, _, data] = self.of(*state).items()[..] else { return None };
        if let Some(bytes) = data.bytes() {
            let (numbers, rest) = bytes.as_chunks::<8>();
            let int64 = dtype.int64().filter(|_| rest.is_empty())?;
            return Some(numbers.iter().map(|number| int64(*number).to_string()).collect());
        }
        let name = |item: &PickleValue| match item.text() {
            Some(text) => Some(text.to_string()),
            None => item.int().map(|number| number.to_string()),
        };
        data.items().iter().map(name).collect()
    }

    fn bytes(self) -> Option<Cow<'a, [u8]>> {
        match self.node() {
            Node::Bytes(bytes) => Some(Cow::Borrowed(bytes)),
            // Protocol 2 has no bytes: it has the text whose characters they are.
            Node::Object { class, arguments: Some(arguments), .. } if **class == *"_codecs.encode" => {
                let text = self.of(*arguments).items().first()?.text()?;
                text.chars().map(|character| u8::try_from(character).ok()).collect::<Option<Vec<u8>>>().map(Cow::Owned)
            }
            _ => None,
        }
    }

    /// What makes numbers of bytes, if this is numpy's element type of 64-bit integers.
    fn int64(self) -> Option<fn([u8; 8]) -> i64> {
        let Node::Object { class, arguments: Some(arguments), state: Some(state) } = self.node() else { return None };
        if **class != *"numpy.dtype" || self.of(*arguments).items().first()?.text() != Some("i8") {
            return None;
        }
        // Version, byte order, and more.
        match self.of(*state).items().get(1)?.text()? {
            "<" => Some(i64::from_le_bytes),
            ">" => Some(i64::from_be_bytes),
            _ => None,
        }
    }
}

/// Reads one pickle.
///
/// # Errors
/// What is wrong with it.
pub(super) fn read(reader: &mut impl BufRead) -> Result<Pickle, String> {
    let mut machine = Machine::default();
    for _ in 0..MAX_INSTRUCTIONS {
        let (op, argument) = instruction::next(reader, LONGEST)?;
        if op == b'.' {
            let root = machine.pop()?;
            return Ok(Pickle { nodes: machine.nodes, root });
        }
        machine.run(op, argument)?;
    }
    Err(instruction::too_many())
}

#[derive(Default)]
struct Machine {
    nodes: Vec<Node>,
    stack: Vec<usize>,
    /// Heights of the stack at its marks.
    marks: Vec<usize>,
    memo: HashMap<u32, usize>,
}

impl Machine {
    fn run(&mut self, op: u8, argument: Vec<u8>) -> Result<(), String> {
        let index = instruction::memo_index(op, &argument, self.memo.len());
        if instruction::is_put(op) {
            self.memo.insert(index, self.top()?);
            return Ok(());
        }
        match op {
            0x80 | 0x95 => {}
            b'(' => self.marks.push(self.stack.len()),
            b'0' => {
                self.pop()?;
            }
            b'1' => {
                self.since_mark()?;
            }
            b'2' => self.stack.push(self.top()?),
            b'g' | b'h' | b'j' => {
                let node = self.memo.get(&index).ok_or("its pickle refers to what it has not stored")?;
                self.stack.push(*node);
            }
            b'N' => self.push(Node::None),
            0x88 => self.push(Node::Bool(true)),
            0x89 => self.push(Node::Bool(false)),
            b'I' | b'L' => self.push(number_in_text(&argument)),
            b'K' | b'M' => self.push(Node::Int(little_endian(&argument) as i64)),
            b'J' => self.push(Node::Int(little_endian(&argument) as u32 as i32 as i64)),
            0x8a | 0x8b => self.push(signed(&argument)),
            b'F' => {
                let value = str::from_utf8(&argument).ok().and_then(|text| text.trim().parse().ok());
                self.push(value.map_or(Node::Other, Node::Float));
            }
            b'G' => {
                let bits = argument.iter().fold(0, |bits, &byte| bits << 8 | u64::from(byte));
                self.push(Node::Float(f64::from_bits(bits)));
            }
            b'V' | b'X' | 0x8c | 0x8d | b'U' | b'T' => {
                self.push(Node::Text(String::from_utf8_lossy(&argument).into_owned()));
            }
            b'B' | b'C' | 0x8e | 0x96 => self.push(Node::Bytes(argument)),
            b')' | b']' | 0x8f => self.push(Node::Sequence(Vec::new())),
            0x85 => self.tuple(1)?,
            0x86 => self.tuple(2)?,
            0x87 => self.tuple(3)?,
            b't' | b'l' | 0x91 => {
                let items = self.since_mark()?;
                self.push(Node::Sequence(items));
            }
            b'}' => self.push(Node::Dict(Vec::new())),
            b'd' => {
                let items = self.since_mark()?;
                self.push(Node::Dict(pairs(&items)));
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' | 0x90 => {
                let items = self.since_mark()?;
                self.append(items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.insert(&[key, value])?;
            }
            b'u' => {
                let items = self.since_mark()?;
                self.insert(&items)?;
            }
            b'c' => self.global(&argument),
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let global = match (self.nodes.get(module), self.nodes.get(name)) {
                    (Some(Node::Text(module)), Some(Node::Text(name))) => {
                        instruction::global(module.as_bytes(), name.as_bytes())?
                    }
                    _ => return Err("its pickle computes the name of a global".to_string()),
                };
                self.global(&global);
            }
            b'R' | 0x81 => {
                let arguments = self.pop()?;
                self.call(arguments)?;
            }
            0x92 => {
                let _keywords = self.pop()?;
                let arguments = self.pop()?;
                self.call(arguments)?;
            }
            b'b' => {
                let new = self.pop()?;
                let object = self.top()?;
                if let Some(Node::Object { state, .. }) = self.nodes.get_mut(object) {
                    *state = Some(new);
                }
            }
            b'P' => self.push(Node::Other),
            b'Q' => {
                self.pop()?;
                self.push(Node::Other);
            }
            _ => return Err(format!("its pickle has the unsupported opcode 0x{op:02x}")),
        }
        Ok(())
    }

    fn push(&mut self, node: Node) {
        self.stack.push(self.nodes.len());
        self.nodes.push(node);
    }

    fn top(&self) -> Result<usize, String> {
        self.stack.last().copied().ok_or_else(underflow)
    }

    fn pop(&mut self) -> Result<usize, String> {
        match self.marks.last() {
            Some(&mark) if mark >= self.stack.len() => Err(underflow()),
            _ => self.stack.pop().ok_or_else(underflow),
        }
    }

    fn since_mark(&mut self) -> Result<Vec<usize>, String> {
        let mark = self.marks.pop().filter(|&mark| mark <= self.stack.len()).ok_or_else(underflow)?;
        Ok(self.stack.split_off(mark))
    }

    fn tuple(&mut self, n: usize) -> Result<(), String> {
        let mut items = (0..n).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
        items.reverse();
        self.push(Node::Sequence(items));
        Ok(())
    }

    /// A class, given as `module name`.
    fn global(&mut self, name: &[u8]) {
        let class = String::from_utf8_lossy(name).replacen(' ', ".", 1);
        self.push(Node::Object { class: class.into(), arguments: None, state: None });
    }

    /// The object that the class below would make of `arguments`.
    fn call(&mut self, arguments: usize) -> Result<(), String> {
        let callee = self.pop()?;
        let object = match self.nodes.get(callee) {
            Some(Node::Object { class, .. }) if DICTIONARIES.contains(&&**class) => Node::Dict(Vec::new()),
            Some(Node::Object { class, .. }) => {
                Node::Object { class: class.clone(), arguments: Some(arguments), state: None }
            }
            _ => Node::Other,
        };
        self.push(object);
        Ok(())
    }

    fn append(&mut self, more: Vec<usize>) -> Result<(), String> {
        let list = self.top()?;
        if let Some(Node::Sequence(items)) = self.nodes.get_mut(list) {
            items.extend(more);
        }
        Ok(())
    }

    fn insert(&mut self, more: &[usize]) -> Result<(), String> {
        let dict = self.top()?;
        if let Some(Node::Dict(entries)) = self.nodes.get_mut(dict) {
            entries.extend(pairs(more));
        }
        Ok(())
    }
}

fn pairs(items: &[usize]) -> Vec<(usize, usize)> {
    let (pairs, _) = items.as_chunks::<2>();
    pairs.iter().map(|&[key, value]| (key, value)).collect()
}

/// A number of protocol 0, which also writes true and false so.
fn number_in_text(argument: &[u8]) -> Node {
    let text = str::from_utf8(argument).unwrap_or_default().trim();
    match text {
        "00" => Node::Bool(false),
        "01" => Node::Bool(true),
        _ => text.trim_end_matches('L').parse().map_or(Node::Other, Node::Int),
    }
}

/// A little-endian number in two's complement, if it fits 64 bits.
fn signed(bytes: &[u8]) -> Node {
    let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut extended = [if negative { 0xff } else { 0 }; 8];
    match extended.get_mut(..bytes.len()) {
        Some(low) => {
            low.copy_from_slice(bytes);
            Node::Int(i64::from_le_bytes(extended))
        }
        None => Node::Other,
    }
}

fn underflow() -> String {
    "its pickle takes more from its stack than there is".to_string()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> Result<Pickle, String> {
        read(&mut &bytes[..])
    }

    #[test]
    fn values_of_every_protocol_are_read() {
        // pickle.dumps({"a": [1, -2, 2.5, None, True], "b": "x"}, 0) and (.., 4)
        let text = b"(dp0\nVa\np1\n(lp2\nI1\naI-2\naF2.5\naNaI01\nasVb\np3\nVx\np4\ns.";
        let binary = b"\x80\x04\x95%\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x01a\x94]\x94(K\x01J\xfe\xff\xff\xff\
                       G@\x04\x00\x00\x00\x00\x00\x00N\x88e\x8c\x01b\x94\x8c\x01x\x94u.";
        for bytes in [&text[..], &binary[..]] {
            let pickle = of(bytes).unwrap();
            let items = pickle.root().get("a").unwrap().items();
            assert_eq!((items[0].int(), items[1].int(), items[2].float()), (Some(1), Some(-2), Some(2.5)));
            assert!(matches!(items[3].node(), Node::None) && items[4].bool() == Some(true) && items.len() == 5);
            assert_eq!(pickle.root().get("b").unwrap().text(), Some("x"));
            assert!(pickle.root().get("c").is_none() && items[0].get("a").is_none());
        }
    }

    #[test]
    fn objects_are_names_with_states_and_nothing_else() {
        // class os.system called with ("x",), then built with {"heads": 4}
        let pickle =
            of(b"\x80\x02cos\nsystem\nq\x00X\x01\x00\x00\x00x\x85Rq\x01}X\x05\x00\x00\x00headsK\x04sb.").unwrap();
        assert!(matches!(pickle.root().node(), Node::Object { class, .. } if **class == *"os.system"));
        assert_eq!(pickle.root().get("heads").and_then(PickleValue::int), Some(4));
        // A list that holds itself, an object that is its own state: nothing walks in circles.
        let list = of(b"]q\x00h\x00a.").unwrap();
        assert_eq!(list.root().items()[0].items().len(), 1);
        let own = of(b"ca\nb\nq\x00h\x00b.").unwrap();
        assert!(own.root().get("x").is_none());
    }

    /// pickle.dumps(numpy.array([1, 1000, -2], dtype), 2) and (.., 4); pickle.dumps(numpy.array(["x", numpy.int64(1001)], object), 2)
    #[test]
    fn arrays_of_names_are_read_in_their_byte_order() {
        let names = |bytes: &[u8]| of(bytes).unwrap().root().array_of_names();
        let head = b"\x80\x02cnumpy._core.multiarray\n_reconstruct\nq\x00cnumpy\nndarray\nq\x01K\x00\x85q\x02c_codecs\nencode\nq\x03\
                     X\x01\x00\x00\x00bq\x04X\x06\x00\x00\x00latin1q\x05\x86q\x06Rq\x07\x87q\x08Rq\t(K\x01K\x03\x85q\n";
        let dtype = |order: u8| {
            [
                &b"cnumpy\ndtype\nq\x0bX\x02\x00\x00\x00i8q\x0c\x89\x88\x87q\rRq\x0e(K\x03X\x01\x00\x00\x00"[..],
                &[order],
                b"q\x0fNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x10b",
            ]
            .concat()
        };
        let little = "\x01\0\0\0\0\0\0\0\u{e8}\x03\0\0\0\0\0\0\u{fe}\u{ff}\u{ff}\u{ff}\u{ff}\u{ff}\u{ff}\u{ff}";
        let big = "\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\x03\u{e8}\u{ff}\u{ff}\u{ff}\u{ff}\u{ff}\u{ff}\u{ff}\u{fe}";
        for (order, numbers) in [(b'<', little), (b'>', big)] {
            let text =
                [&b"\x89h\x03X"[..], &(numbers.len() as u32).to_le_bytes(), numbers.as_bytes(), b"h\x05\x86Rtb."]
                    .concat();
            let latin1: Vec<u8> = numbers.chars().map(|character| character as u8).collect();
            let bytes = [&b"\x89C\x18"[..], &latin1, b"tb."].concat();
            for data in [text, bytes] {
                let found = names(&[&head[..], &dtype(order), &data].concat()).unwrap();
                assert_eq!(found, ["1", "1000", "-2"], "{}", char::from(order));
            }
        }
        let objects = b"cnumpy\ndtype\nq\x0bX\x02\x00\x00\x00O8q\x0c\x89\x88\x87q\rRq\x0e(K\x03X\x01\x00\x00\x00|q\x0f\
                        NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?tq\x10b\x89]q\x11(X\x01\x00\x00\x00xq\x12cnumpy._core.multiarray\nscalar\n";
        let number =
            [&dtype(b'>'), &b"h\x03X\x09\x00\x00\x00\0\0\0\0\0\0\x03\xc3\xa9h\x05\x86R\x86R"[..], b"etb."].concat();
        assert_eq!(names(&[&head[..], objects, &number].concat()).unwrap(), ["x", "1001"]);
        assert_eq!(names(&[&head[..], &dtype(b'?'), &b"\x89C\x00tb."[..]].concat()), None);
    }

    #[test]
    fn damaged_pickles_are_refused() {
        let damaged: [&[u8]; 9] =
            [b"", b".", b"K", b"a.", b"(e.", b"\x85.", b"h\x05.", b"(K\x01R.", b"K\x01K\x02\x93."];
        for bytes in damaged {
            assert!(of(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn whole_numbers_of_any_length_are_read() {
        assert!(matches!(signed(&[]), Node::Int(0)));
        assert!(matches!(signed(&[0xff]), Node::Int(-1)));
        assert!(matches!(signed(&[0, 1]), Node::Int(256)));
        assert!(matches!(signed(&[1; 9]), Node::Other));
    }
}
