//! How often each instruction of a kernel runs, found by following its control flow with what is known of scalar registers.
//!
//! Scalars that constants determine are computed, so that loops over constants turn as often as they do; for the others the kernel
//! says how often they turn. Masks of threads are known to be full, to be empty, or not known, which counts as some threads. A
//! condition that is not known does not skip anything, but for one: a score is taken not to pass the filter of a scan, because
//! few do.

use std::collections::HashMap;

use super::code::{Code, Instruction, Kind};

/// Instructions that were run, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    /// Sums of products.
    pub multiply_adds: u64,
    /// Vector instructions, those included.
    pub vector: u64,
    pub scalar: u64,
    /// Loads and stores.
    pub memory: u64,
    pub scalar_memory: u64,
    pub workgroup: u64,
}

/// Which threads of a wave take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mask {
    Full,
    Empty,
    Some,
}

impl Mask {
    fn not(self) -> Mask {
        match self {
            Mask::Full => Mask::Empty,
            Mask::Empty => Mask::Full,
            Mask::Some => Mask::Some,
        }
    }

    fn and(self, other: Mask) -> Mask {
        match (self, other) {
            (Mask::Empty, _) | (_, Mask::Empty) => Mask::Empty,
            (Mask::Full, mask) | (mask, Mask::Full) => mask,
            _ => Mask::Some,
        }
    }

    fn or(self, other: Mask) -> Mask {
        self.not().and(other.not()).not()
    }
}

/// Binding of the hit lists' state in every scan: a scan that reads it asks whether a score passes.
const STATE: u32 = 5;

/// Instructions after which a kernel is taken to be endless.
const MOST: u64 = 20_000_000;

/// A register: `s7`; or one of `vcc`, `exec` and so on.
fn registers(operand: &str) -> Vec<String> {
    let operand = operand.split_whitespace().next().unwrap_or("");
    let range =
        operand.strip_prefix("s[").and_then(|rest| rest.strip_suffix(']')).and_then(|rest| rest.split_once(':'));
    if let Some((Ok(first), Ok(last))) = range.map(|(first, last)| (first.parse::<u32>(), last.parse::<u32>())) {
        return (first..=last).map(|n| format!("s{n}")).collect();
    }
    match operand {
        "vcc" | "exec" => ["lo", "hi"].map(|half| format!("{operand}_{half}")).to_vec(),
        _ => vec![operand.to_string()],
    }
}

fn literal(operand: &str) -> Option<u32> {
    let operand = operand.split_whitespace().next()?;
    match operand.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => operand.parse::<i64>().ok().map(|value| value as u32),
    }
}

/// What is known while the kernel runs.
struct Walk<'a> {
    code: &'a Code,
    is_scan: bool,
    scalars: HashMap<String, u32>,
    masks: HashMap<String, Mask>,
    /// (binding, word) of descriptors in registers.
    descriptors: HashMap<String, (u32, u32)>,
    scc: Option<bool>,
    /// Whether the state of a hit list was read, and the score has not been compared with it yet.
    asked: bool,
    /// Turns of loops that are under way, by their first instructions.
    turns: HashMap<usize, u64>,
    /// Loops whose ends are not known, in the order of the text as far as it was run: (first instruction, turns).
    open: Vec<(usize, u64)>,
    expected: Vec<u64>,
    counts: Counts,
}

/// Runs a kernel, a scan or not, whose loops with ends that the code does not tell turn as often as `turns` says.
pub fn counts(code: &Code, is_scan: bool, turns: &[u64]) -> Result<Counts, String> {
    let mut walk = Walk {
        code,
        is_scan,
        scalars: HashMap::new(),
        masks: HashMap::new(),
        descriptors: HashMap::new(),
        scc: None,
        asked: false,
        turns: HashMap::new(),
        open: Vec::new(),
        expected: turns.to_vec(),
        counts: Counts::default(),
    };
    walk.set_mask("exec", Mask::Full);
    walk.run()?;
    match walk.expected.as_slice() {
        [] => Ok(walk.counts),
        left => Err(format!("no loops for turns {left:?}: {} were found", walk.open.len())),
    }
}

impl Walk<'_> {
    fn run(&mut self) -> Result<(), String> {
        let loops = loops(self.code);
        let (mut at, mut left) = (0, MOST);
        while let Some(instruction) = self.code.instructions.get(at) {
            left = left.checked_sub(1).ok_or("it does not end")?;
            if let Some(turns) = loops.get(&at).and(self.turns.get_mut(&at)) {
                *turns += 1;
            } else if loops.contains_key(&at) {
                self.turns.insert(at, 1);
            }
            if instruction.name == "s_endpgm" {
                return Ok(());
            }
            self.count(instruction);
            let target = self.code.targets.get(&at).copied();
            at = match target {
                Some(target) if self.takes(instruction, at, target, &loops)? => {
                    // What is left is entered anew.
                    self.turns.retain(|&first, _| first <= target && target <= loops[&first]);
                    target
                }
                Some(_) => {
                    self.turns.retain(|&first, _| first <= at + 1 && at < loops[&first]);
                    at + 1
                }
                None => {
                    self.execute(instruction);
                    at + 1
                }
            };
        }
        Ok(())
    }

    fn count(&mut self, instruction: &Instruction) {
        let counts = &mut self.counts;
        match instruction.kind() {
            Kind::MultiplyAdd(n) => {
                counts.multiply_adds += n;
                counts.vector += 1;
            }
            Kind::Vector => counts.vector += 1,
            Kind::Scalar => counts.scalar += 1,
            Kind::Memory => counts.memory += 1,
            Kind::ScalarMemory => counts.scalar_memory += 1,
            Kind::Workgroup => counts.workgroup += 1,
        }
    }

    /// Whether the branch at `at` is taken.
    fn takes(
        &mut self,
        branch: &Instruction,
        at: usize,
        target: usize,
        loops: &HashMap<usize, usize>,
    ) -> Result<bool, String> {
        let known = match branch.name.as_str() {
            "s_branch" => Some(true),
            "s_cbranch_scc0" => self.scc.map(|scc| !scc),
            "s_cbranch_scc1" => self.scc,
            "s_cbranch_execz" | "s_cbranch_execnz" => {
                if std::mem::take(&mut self.asked) {
                    self.set_mask("exec", Mask::Empty);
                }
                let empty = self.mask("exec") == Mask::Empty;
                // Threads that are left may or may not go on with a loop.
                let unclear = self.mask("exec") == Mask::Some && leaves(at, target, loops);
                (!unclear).then_some(empty == branch.name.ends_with("execz"))
            }
            "s_cbranch_vccz" | "s_cbranch_vccnz" => match self.mask("vcc") {
                Mask::Some => None,
                mask => Some((mask == Mask::Empty) == branch.name.ends_with("vccz")),
            },
            name => return Err(format!("{name}: an unknown branch")),
        };
        if let Some(known) = known {
            return Ok(known);
        }
        // A backward branch goes on with the innermost loop, a forward one may leave it.
        let first = if target <= at {
            target
        } else {
            match innermost(at, loops) {
                Some(first) if target > loops[&first] => first,
                _ => return Ok(false),
            }
        };
        let expected = self.expected_turns(first)?;
        let turns = self.turns.get(&first).copied().unwrap_or(1);
        if target <= at {
            return Ok(turns < expected);
        }
        // The test may come before what a turn does, or after it.
        let comes_first = at - first < loops[&first] - at;
        Ok(if comes_first { turns > expected } else { turns >= expected })
    }

    fn expected_turns(&mut self, first: usize) -> Result<u64, String> {
        if let Some((_, turns)) = self.open.iter().find(|(known, _)| *known == first) {
            return Ok(*turns);
        }
        if self.expected.is_empty() {
            return Err(format!(
                "loop {}, at instruction {first}, ends at something that nobody has named",
                self.open.len()
            ));
        }
        let turns = self.expected.remove(0);
        self.open.push((first, turns));
        Ok(turns)
    }

    fn mask(&self, operand: &str) -> Mask {
        match literal(operand) {
            Some(0) => Mask::Empty,
            Some(u32::MAX) => Mask::Full,
            Some(_) => Mask::Some,
            None => registers(operand).first().and_then(|first| self.masks.get(first)).copied().unwrap_or(Mask::Some),
        }
    }

    fn set_mask(&mut self, operand: &str, mask: Mask) {
        self.forget(operand);
        if let Some(first) = registers(operand).first() {
            self.masks.insert(first.clone(), mask);
        }
    }

    fn scalar(&self, operand: &str) -> Option<u32> {
        match operand {
            "src_scc" => self.scc.map(u32::from),
            _ => literal(operand).or_else(|| self.scalars.get(operand).copied()),
        }
    }

    fn forget(&mut self, operand: &str) {
        for register in registers(operand) {
            self.scalars.remove(&register);
            self.masks.remove(&register);
            self.descriptors.remove(&register);
        }
    }

    fn execute(&mut self, instruction: &Instruction) {
        let operand = |i| instruction.operand(i);
        let name = instruction.name.as_str();
        match instruction.kind() {
            Kind::MultiplyAdd(_) => {}
            Kind::Vector => {
                if name.starts_with("v_cmpx") {
                    let mask = self.mask("exec").and(Mask::Some);
                    self.set_mask("exec", mask);
                } else if name.starts_with("v_cmp") || name.starts_with("v_read") {
                    self.forget(operand(0));
                } else if operand(1).starts_with("vcc") || operand(1).starts_with("s[") {
                    // A carry.
                    self.forget(operand(1));
                }
            }
            Kind::Memory => self.asked |= name.contains("load") && self.reads_state(instruction),
            Kind::ScalarMemory => self.load(instruction),
            Kind::Workgroup => {}
            Kind::Scalar if name.ends_with("_b64") || name.contains("saveexec") => self.execute_mask(instruction),
            Kind::Scalar => self.execute_scalar(instruction),
        }
    }

    fn reads_state(&self, instruction: &Instruction) -> bool {
        let descriptor = instruction.operands.iter().find(|operand| operand.starts_with("s["));
        let first = descriptor.and_then(|operand| registers(operand).into_iter().next());
        self.is_scan
            && first.and_then(|first| self.descriptors.get(&first)).is_some_and(|(binding, _)| *binding == STATE)
    }

    fn load(&mut self, instruction: &Instruction) {
        let loaded = registers(instruction.operand(0));
        self.forget(instruction.operand(0));
        if instruction.name.starts_with("s_load") {
            let offset = if instruction.operand(2) == "null" { Some(0) } else { literal(instruction.operand(2)) };
            let Some(offset) = offset else { return };
            for (register, word) in loaded.into_iter().zip(offset / 4..) {
                self.descriptors.insert(register, (word / 4, word % 4));
            }
        } else if self
            .reads_state(&Instruction { name: String::new(), operands: vec![instruction.operand(1).to_string()] })
        {
            self.asked = true;
        }
    }

    fn execute_mask(&mut self, instruction: &Instruction) {
        let operand = |i| instruction.operand(i);
        let (name, target) = (instruction.name.as_str(), operand(0));
        let (a, b) = (self.mask(operand(1)), self.mask(operand(2)));
        let known = |half: String| (self.scalars.get(&half).copied(), self.descriptors.get(&half).copied());
        let halves: Vec<_> = match literal(operand(1)) {
            // So many ones, from that bit on.
            Some(ones) if name == "s_bfm_b64" => {
                let bits = ((1u128 << ones) - 1) << literal(operand(2)).unwrap_or(0);
                [0, 32].map(|shift| (Some((bits >> shift) as u32), None)).to_vec()
            }
            // Literals are extended by their signs.
            Some(low) => vec![(Some(low), None), (Some(if low as i32 >= 0 { 0 } else { u32::MAX }), None)],
            None => registers(operand(1)).into_iter().map(known).collect(),
        };
        let result = match name {
            "s_mov_b64" => a,
            "s_not_b64" => a.not(),
            "s_and_b64" => a.and(b),
            "s_or_b64" => a.or(b),
            "s_nand_b64" => a.and(b).not(),
            "s_nor_b64" => a.or(b).not(),
            "s_andn2_b64" | "s_and_not1_b64" => a.and(b.not()),
            "s_orn2_b64" | "s_or_not1_b64" => a.or(b.not()),
            "s_xor_b64" => match b {
                Mask::Empty => a,
                Mask::Full => a.not(),
                Mask::Some => Mask::Some,
            },
            "s_cselect_b64" => match self.scc {
                Some(scc) => {
                    if scc {
                        a
                    } else {
                        b
                    }
                }
                None => {
                    if a == b {
                        a
                    } else {
                        Mask::Some
                    }
                }
            },
            "s_and_saveexec_b64" | "s_or_saveexec_b64" => {
                let before = self.mask("exec");
                let after = if name.starts_with("s_and") { before.and(a) } else { before.or(a) };
                self.set_mask("exec", after);
                before
            }
            _ if name.starts_with("s_cmp") || name.starts_with("s_bitcmp") => {
                self.scc = None;
                return;
            }
            _ => Mask::Some,
        };
        if !matches!(name, "s_mov_b64" | "s_cselect_b64") {
            let changed = if name.contains("saveexec") { self.mask("exec") } else { result };
            self.scc = (changed != Mask::Some).then_some(changed == Mask::Full);
        }
        self.set_mask(target, result);
        if matches!(name, "s_mov_b64" | "s_bfm_b64") {
            for (register, (scalar, descriptor)) in registers(target).into_iter().zip(halves) {
                self.scalars.extend(scalar.map(|scalar| (register.clone(), scalar)));
                self.descriptors.extend(descriptor.map(|descriptor| (register, descriptor)));
            }
        }
    }

    fn execute_scalar(&mut self, instruction: &Instruction) {
        let operand = |i| instruction.operand(i);
        let name = instruction.name.as_str();
        if let Some(comparison) = name.strip_prefix("s_cmp_").or_else(|| name.strip_prefix("s_cmpk_")) {
            let pair = self.scalar(operand(0)).zip(self.scalar(operand(1)));
            self.scc = pair.and_then(|(a, b)| compared(comparison, a, b));
            return;
        }
        if [
            "s_wait",
            "s_nop",
            "s_delay",
            "s_clause",
            "s_barrier",
            "s_set_inst",
            "s_inst",
            "s_send",
            "s_sleep",
            "s_bitcmp",
        ]
        .iter()
        .any(|prefix| name.starts_with(prefix))
        {
            self.scc = if name.starts_with("s_bitcmp") { None } else { self.scc };
            return;
        }
        let target = operand(0).to_string();
        let (a, b) = (self.scalar(operand(1)), self.scalar(operand(2)));
        let old = self.scalar(&target);
        let both = |f: fn(u32, u32) -> u32| a.zip(b).map(|(a, b)| f(a, b));
        let short = a.map(|value| value as u16 as i16 as u32);
        let value = match name {
            "s_mov_b32" => a,
            "s_movk_i32" => short,
            "s_add_u32" | "s_add_i32" => both(u32::wrapping_add),
            "s_sub_u32" | "s_sub_i32" => both(u32::wrapping_sub),
            "s_addk_i32" => old.zip(short).map(|(a, b)| a.wrapping_add(b)),
            "s_mul_i32" => both(u32::wrapping_mul),
            "s_mulk_i32" => old.zip(short).map(|(a, b)| a.wrapping_mul(b)),
            "s_and_b32" => both(|a, b| a & b),
            "s_or_b32" => both(|a, b| a | b),
            "s_lshl_b32" => both(|a, b| a << (b & 31)),
            "s_lshr_b32" => both(|a, b| a >> (b & 31)),
            "s_lshl2_add_u32" => both(|a, b| (a << 2).wrapping_add(b)),
            "s_lshl4_add_u32" => both(|a, b| (a << 4).wrapping_add(b)),
            "s_min_u32" => both(u32::min),
            "s_max_u32" => both(u32::max),
            "s_cselect_b32" => self.scc.and_then(|scc| if scc { a } else { b }),
            _ => None,
        };
        let descriptor = (name == "s_mov_b32").then(|| self.descriptors.get(operand(1)).copied()).flatten();
        if !(name.starts_with("s_mov") || name.starts_with("s_mul_i32") || name.starts_with("s_cselect")) {
            let nonzero = ["s_and_b32", "s_or_b32", "s_lshl_b32", "s_lshr_b32"].contains(&name);
            self.scc = if nonzero { value.map(|value| value != 0) } else { None };
        }
        self.forget(&target);
        self.scalars.extend(value.map(|value| (target.clone(), value)));
        self.descriptors.extend(descriptor.map(|descriptor| (target, descriptor)));
    }
}

fn compared(comparison: &str, a: u32, b: u32) -> Option<bool> {
    let (kind, ty) = comparison.rsplit_once('_')?;
    let order = match ty {
        "u32" => a.cmp(&b),
        "i32" => (a as i32).cmp(&(b as i32)),
        _ => return None,
    };
    match kind {
        "eq" => Some(order.is_eq()),
        "lg" => Some(order.is_ne()),
        "lt" => Some(order.is_lt()),
        "le" => Some(order.is_le()),
        "gt" => Some(order.is_gt()),
        "ge" => Some(order.is_ge()),
        _ => None,
    }
}

/// First and last instruction of every loop.
fn loops(code: &Code) -> HashMap<usize, usize> {
    let mut loops = HashMap::new();
    for (&at, &target) in code.targets.iter().filter(|(at, target)| target <= at) {
        let last = loops.entry(target).or_insert(at);
        *last = at.max(*last);
    }
    loops
}

fn innermost(at: usize, loops: &HashMap<usize, usize>) -> Option<usize> {
    loops.iter().filter(|&(&first, &last)| first <= at && at <= last).map(|(&first, _)| first).max()
}

fn leaves(at: usize, target: usize, loops: &HashMap<usize, usize>) -> bool {
    target <= at || innermost(at, loops).is_some_and(|first| target > loops[&first])
}
