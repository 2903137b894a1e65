//! The native CPU backend: what everybody without a GPU runs, and the twin that the GPU kernels are compared with.
//!
//! One micro-kernel (`tile.rs`) serves every product of queries and items in floats: items lie in SIMD lanes, four rows at a
//! time are multiplied by broadcasts, and each sum runs over the inner axis in order. So results do not depend on batch size,
//! tiling or the number of threads. Inner products with 8-bit items have a kernel of their own (`int8_tile.rs`), in integers,
//! and few queries multiply items as they lie in memory (`few_rows.rs`, `few_integers.rs`), to the same bits; a single one leaves out
//! most of them (`sieve.rs`). The matrices of encoders are multiplied by a library (`gemm.rs`).

mod aligned;
mod attention;
mod dot_scan;
mod encoder;
#[cfg_attr(not(any(target_arch = "x86", target_arch = "x86_64")), path = "few_integers_elsewhere.rs")]
mod few_integers;
#[cfg_attr(not(any(target_arch = "x86", target_arch = "x86_64")), path = "few_rows_elsewhere.rs")]
mod few_rows;
mod filter;
mod fixed_rows;
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
mod float_sieve;
mod gemm;
mod halves;
mod index;
mod int8_tile;
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
mod integer_sieve;
mod lanes;
mod list_scan;
mod mol_gradient;
mod mol_kernel;
mod mol_scan;
mod ops;
mod patience;
mod prefetch;
#[cfg_attr(not(any(target_arch = "x86", target_arch = "x86_64")), path = "sieve_elsewhere.rs")]
mod sieve;
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
mod sieve_element;
mod simd;
mod tile;
mod top_k;
mod transpose;
mod workers;

pub use index::CpuIndex;
pub use ops::CpuOps;

use std::sync::Arc;

use crate::Result;
use crate::backend::{Backend, DeviceIndex, DeviceInfo, DeviceKind, QueryEncoder, Similarity};
use crate::model::{Encoder, ItemParts, Mol};
use crate::ops::Ops;
use crate::tables::{ItemSide, Tables};
use crate::tensor::Tensor;

/// The native CPU backend.
#[derive(Clone, Debug)]
pub struct Cpu {
    info: DeviceInfo,
}

impl Default for Cpu {
    fn default() -> Cpu {
        let threads = rayon::current_num_threads();
        let lanes = simd::lanes();
        let info = DeviceInfo {
            name: "cpu".to_string(),
            kind: DeviceKind::Cpu,
            backend: "native".to_string(),
            driver: format!("{} {lanes} x f32 lanes", std::env::consts::ARCH),
            features: vec!["f32".to_string(), "f16 storage".to_string(), "int8 storage".to_string()],
            limits: vec![("threads", threads as u64), ("SIMD lanes", lanes as u64)],
        };
        Cpu { info }
    }
}

impl Backend for Cpu {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn share(&self) -> Arc<dyn Backend> {
        Arc::new(self.clone())
    }

    fn encoder(&self, encoder: &Encoder<Tensor>) -> Result<Box<dyn QueryEncoder>> {
        Ok(Box::new(encoder::CpuEncoder::new(encoder)))
    }

    fn item_side(&self, mol: &Mol<Tensor>, items: &Tensor) -> Result<ItemSide> {
        let weights = mol.map(&mut |tensor| CpuOps.floats(tensor));
        let parts = weights.item_side(&mut CpuOps, &CpuOps.floats(items), items.rows());
        let host = |values: &Shared| values.to_vec();
        let parts = ItemParts {
            components: host(&parts.components),
            projected: parts.projected.as_ref().map(host),
            gate: parts.gate.as_ref().map(host),
            principal: parts.principal.as_ref().map(host),
        };
        Ok(ItemSide::new(mol, parts))
    }

    fn load(&self, tables: Arc<Tables>, similarity: Option<&Similarity>) -> Result<Box<dyn DeviceIndex>> {
        Ok(Box::new(CpuIndex::new(tables, similarity)))
    }
}

/// A device array of the CPU backend: shared host memory.
pub(crate) type Shared = Arc<Vec<f32>>;
