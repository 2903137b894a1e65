//! Products of small matrices that a device computes as one operation ("cooperative matrices").

/// The cooperative matrices of a device: halves times halves, summed in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Matrices {
    /// Rows and columns: 8 or 16.
    pub edge: usize,
    /// Threads of the widest subgroup.
    pub subgroup: usize,
    /// Bytes of memory that a workgroup may have.
    pub workgroup_bytes: usize,
    /// Whether they can be added, and multiplied by numbers: not in Metal.
    pub arithmetic: bool,
}

impl Matrices {
    /// What the kernel needs beside the matrices themselves.
    const FEATURES: wgpu::Features = wgpu::Features::SHADER_F16.union(wgpu::Features::SUBGROUP);

    /// Those of `adapter`, the largest if there are several.
    pub fn of(adapter: &wgpu::Adapter) -> Option<Matrices> {
        let needed = Matrices::FEATURES | wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
        let edge = Matrices::edge(&adapter.cooperative_matrix_properties())?;
        let subgroup = adapter.get_info().subgroup_max_size as usize;
        let workgroup_bytes = adapter.limits().max_compute_workgroup_storage_size as usize;
        let usable = adapter.features().contains(needed) && subgroup > 0;
        let arithmetic = adapter.get_info().backend == wgpu::Backend::Vulkan;
        usable.then_some(Matrices { edge, subgroup, workgroup_bytes, arithmetic })
    }

    fn edge(properties: &[wgpu::CooperativeMatrixProperties]) -> Option<usize> {
        use wgpu::CooperativeScalarType::{F16, F32};
        let has = |edge: u32| {
            properties
                .iter()
                .any(|p| (p.ab_type, p.cr_type) == (F16, F32) && (p.m_size, p.n_size, p.k_size) == (edge, edge, edge))
        };
        [16, 8].into_iter().find(|&edge| has(edge)).map(|edge| edge as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_products_of_halves_in_f32_will_do() {
        use wgpu::CooperativeScalarType::{F16, F32};
        let kind = |edge: u32, k_size, ab_type, cr_type| wgpu::CooperativeMatrixProperties {
            m_size: edge,
            n_size: edge,
            k_size,
            ab_type,
            cr_type,
            saturating_accumulation: false,
        };
        assert_eq!(Matrices::edge(&[kind(16, 16, F16, F16), kind(8, 8, F32, F32), kind(8, 16, F16, F32)]), None);
        assert_eq!(Matrices::edge(&[kind(8, 8, F16, F32)]), Some(8));
        assert_eq!(Matrices::edge(&[kind(8, 8, F16, F32), kind(16, 16, F16, F32)]), Some(16));
    }
}
