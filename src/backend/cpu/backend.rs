//! The CPU as a device.

use std::sync::Arc;

use super::encoder::CpuEncoder;
use super::index::CpuIndex;
use super::ops::{CpuOps, Shared};
use super::simd;
use crate::Result;
use crate::backend::{Backend, DeviceIndex, DeviceInfo, DeviceKind, QueryEncoder, SearchContext, Similarity};
use crate::model::{Encoder, ItemParts, Mol, TokenPooling};
use crate::ops::Ops;
use crate::tables::{ItemSide, Tables};
use crate::tensor::Tensor;
use crate::threads;
use crate::token_embeddings::TokenEmbeddings;

/// The native CPU backend.
#[derive(Clone, Debug)]
pub struct Cpu {
    info: DeviceInfo,
}

impl Default for Cpu {
    fn default() -> Cpu {
        let threads = threads::count();
        let lanes = simd::f32_lanes();
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
        Ok(Box::new(CpuEncoder::new(encoder)))
    }

    fn item_side(&self, mol: &Mol<Tensor>, items: &Tensor) -> Result<ItemSide> {
        let weights = mol.map(&mut |tensor| CpuOps::default().floats(tensor));
        let parts = weights.item_side(&mut CpuOps::default(), &CpuOps::default().floats(items), items.rows());
        let host = |values: &Shared| values.to_vec();
        let parts = ItemParts {
            components: host(&parts.components),
            projected: parts.projected.as_ref().map(host),
            gate: parts.gate.as_ref().map(host),
            principal: parts.principal.as_ref().map(host),
        };
        Ok(ItemSide::new(mol, parts))
    }

    fn pool(&self, pooling: &TokenPooling, texts: &TokenEmbeddings) -> Result<Tensor> {
        pooling.pool(&mut CpuOps::pooled(), texts)
    }

    fn load(
        &self,
        _: &SearchContext,
        tables: Arc<Tables>,
        similarity: Option<&Similarity>,
    ) -> Result<Box<dyn DeviceIndex>> {
        Ok(Box::new(CpuIndex::new(tables, similarity)))
    }
}
