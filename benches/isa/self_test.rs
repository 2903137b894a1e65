//! Whether the check notices what it is there for: kernels are made worse, and must fail.

use rails_wgpu::backend::gpu::{ShapedKernel, shaped_kernels};

use super::driver::Driver;
use super::floors::Floors;
use super::measured::measured;
use super::spirv::{self, Checks, Shaders};

/// The kernel that is made worse.
const VICTIM: [&str; 3] = ["mol_scan", "ml-1m 8x4x64, B=32", "f32"];

/// What a text gets in place of what.
type Change = (&'static str, &'static str);

/// An index that the compiler does not know.
const INDEXED: &[Change] =
    &[("let j = n * OWN_ITEM_VECTORS + m;", "let j = (n * OWN_ITEM_VECTORS + m + query_base) % OWN;")];

/// Arrays of 64 logits instead of 32.
const LONG: &[Change] = &[
    ("const ITEM_VECTORS: u32 = 4u;", "const ITEM_VECTORS: u32 = 8u;"),
    ("const OWN_ITEM_VECTORS: u32 = 4u;", "const OWN_ITEM_VECTORS: u32 = 8u;"),
    ("const OWN_X: u32 = 4u;", "const OWN_X: u32 = 8u;"),
    ("const OWN: u32 = 32u;", "const OWN: u32 = 64u;"),
    ("const OWN4: u32 = 8u;", "const OWN4: u32 = 16u;"),
    ("const L: u32 = 32u;", "const L: u32 = 64u;"),
    ("const L4: u32 = 8u;", "const L4: u32 = 16u;"),
];

/// Tries it.
pub fn run(driver: &Driver, generation: &str, floors: &Floors) -> Result<(), String> {
    let is_victim = |kernel: &ShapedKernel| [kernel.spec.label(), &kernel.shape, kernel.dtype] == VICTIM;
    let victim = shaped_kernels().into_iter().find(is_victim).ok_or("the kernel to test with is gone")?;
    let complaint = |changes: &[Change], loops: bool| -> Result<Option<String>, String> {
        let mut text = Shaders::compiled().text(&victim.spec);
        for (old, new) in changes {
            if text.matches(old).count() != 1 {
                return Err(format!("`{old}` is not in the text once"));
            }
            text = text.replace(old, new);
        }
        let compiled = spirv::compiled(&victim.spec, &text, Checks { loops })?;
        // Loops that can no longer be followed are noticed, too.
        Ok(match measured(generation, &victim, &driver.compile(&compiled)?) {
            Ok(row) => floors.complaint(&row),
            Err(error) => Some(error),
        })
    };
    if let Some(complaint) = complaint(&[], false)? {
        return Err(complaint);
    }
    let mut longer = victim.clone();
    longer.turns.push(1);
    let compiled = spirv::compiled(&longer.spec, &Shaders::compiled().text(&longer.spec), Checks { loops: false })?;
    match measured(generation, &longer, &driver.compile(&compiled)?) {
        Ok(_) => return Err(format!("{generation}: turns of a loop that is not there: not noticed")),
        Err(error) => println!("{generation}: turns of a loop that is not there: noticed: {error}"),
    }
    for (what, changes, loops) in [
        ("loops that count their turns", &[][..], true),
        ("an array with an index that is not known", INDEXED, false),
        ("an array in registers that is twice as long", LONG, false),
    ] {
        match complaint(changes, loops)? {
            Some(complaint) => println!("{generation}: {what}: noticed: {complaint}"),
            None => return Err(format!("{generation}: {what}: not noticed")),
        }
    }
    Ok(())
}
