//! Disassembled kernels: instructions, and where branches lead.

use std::collections::HashMap;

/// An instruction: its name, and its operands.
#[derive(Clone, Debug, PartialEq)]
pub struct Instruction {
    pub name: String,
    pub operands: Vec<String>,
}

/// What an instruction is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A vector instruction that adds so many products.
    MultiplyAdd(u64),
    /// Another vector instruction.
    Vector,
    Scalar,
    /// Loads and stores of vectors, of scalars, and of workgroup memory.
    Memory,
    ScalarMemory,
    Workgroup,
}

impl Instruction {
    pub fn kind(&self) -> Kind {
        let name = self.name.as_str();
        let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
        if starts(&["v_pk_fma", "v_dot2"]) {
            return Kind::MultiplyAdd(2);
        }
        // Four products of bytes are one here.
        if starts(&["v_fma", "v_fmac", "v_mac", "v_mad_f32", "v_mad_f16", "v_mad_mix", "v_dot4"]) {
            return Kind::MultiplyAdd(1);
        }
        if starts(&["v_dual"]) {
            // Two instructions in one: `v_dual_a x, y, z :: v_dual_b u, v, w`.
            let second = self.operands.iter().any(|operand| operand.contains("v_dual_fmac"));
            return match u64::from(starts(&["v_dual_fmac"])) + u64::from(second) {
                0 => Kind::Vector,
                n => Kind::MultiplyAdd(n),
            };
        }
        if starts(&["v_"]) {
            return Kind::Vector;
        }
        if starts(&["s_load", "s_buffer_load"]) {
            return Kind::ScalarMemory;
        }
        if starts(&["buffer_", "global_", "flat_", "scratch_"]) {
            return Kind::Memory;
        }
        if starts(&["ds_"]) { Kind::Workgroup } else { Kind::Scalar }
    }

    /// Registers of operand `i`: `s[4:7]`, `s3`, `vcc`, ...
    pub fn operand(&self, i: usize) -> &str {
        self.operands.get(i).map_or("", String::as_str)
    }
}

/// A whole kernel.
#[derive(Debug)]
pub struct Code {
    pub instructions: Vec<Instruction>,
    /// Where each branch leads, by the number of the instruction.
    pub targets: HashMap<usize, usize>,
}

impl Code {
    /// Of a listing by Mesa.
    pub fn parse(text: &str) -> Code {
        let (mut labels, mut instructions) = (HashMap::new(), Vec::new());
        for line in text.lines() {
            let line = line.split(';').next().unwrap_or("").trim_end_matches(['\0', ' ']);
            if let Some(label) = line.strip_suffix(':') {
                labels.insert(label.to_string(), instructions.len());
            } else if let Some((name, operands)) =
                line.strip_prefix('\t').map(|line| line.split_once(' ').unwrap_or((line, "")))
            {
                // Operands are parted by commas, modifiers by blanks.
                let operands = operands.split(',').map(|operand| operand.trim().to_string());
                instructions.push(Instruction { name: name.to_string(), operands: operands.collect() });
            }
        }
        let branches = instructions.iter().enumerate().filter(|(_, instruction)| instruction.name.contains("branch"));
        let targets = branches.filter_map(|(at, branch)| Some((at, *labels.get(branch.operand(0))?))).collect();
        Code { instructions, targets }
    }
}
