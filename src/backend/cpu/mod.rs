//! The native CPU backend: what everybody without a GPU runs, and the twin that the GPU kernels are compared with.
//!
//! One micro-kernel (`tile.rs`) serves every product of the crate: items (or output columns) lie in SIMD lanes, four
//! rows at a time are multiplied by broadcasts, and each sum runs over the inner axis in order. So results do not
//! depend on batch size, tiling or the number of threads.

mod attention;
mod dot_scan;
mod encoder;
mod index;
mod mol_scan;
mod ops;
pub mod simd;
mod table;
mod tile;
mod top_k;
mod workers;

pub use ops::CpuOps;

use std::sync::Arc;

use crate::Result;
use crate::backend::{Backend, DeviceIndex, DeviceInfo, DeviceKind, Dtype, QueryEncoder};
use crate::model::{Encoder, Mol};
use crate::tensor::Tensor;

/// The native CPU backend.
#[derive(Debug)]
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
            features: vec!["f32".to_string(), "f16 storage".to_string()],
            limits: vec![("threads", threads as u64), ("SIMD lanes", lanes as u64)],
        };
        Cpu { info }
    }
}

impl Backend for Cpu {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn encoder(&self, encoder: &Encoder<Tensor>) -> Result<Box<dyn QueryEncoder>> {
        Ok(Box::new(encoder::CpuEncoder::new(encoder)))
    }

    fn index(&self, embeddings: &Tensor, mol: Option<&Mol<Tensor>>, dtype: Dtype) -> Result<Box<dyn DeviceIndex>> {
        Ok(Box::new(index::CpuIndex::build(embeddings, mol, dtype)?))
    }
}

/// A device array of the CPU backend: shared host memory.
pub(crate) type Shared = Arc<Vec<f32>>;
