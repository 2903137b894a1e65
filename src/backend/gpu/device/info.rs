//! What a device is, in words and numbers.

use crate::backend::{DeviceInfo, DeviceKind};

/// Optional features that kernels or benchmarks make use of.
pub(crate) const USEFUL: [(wgpu::Features, &str); 4] = [
    (wgpu::Features::SHADER_F16, "shader-f16"),
    (wgpu::Features::SUBGROUP, "subgroup"),
    (wgpu::Features::TIMESTAMP_QUERY, "timestamp-query"),
    (wgpu::Features::PIPELINE_CACHE, "pipeline-cache"),
];

/// What only devices of our own are opened with: a host's descriptor would have to be marked as experimental.
pub(crate) const MATRICES: (wgpu::Features, &str) =
    (wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX, "cooperative-matrix");

pub(crate) fn describe(info: &wgpu::AdapterInfo, features: wgpu::Features, limits: &wgpu::Limits) -> DeviceInfo {
    let kind = match info.device_type {
        wgpu::DeviceType::DiscreteGpu => DeviceKind::DiscreteGpu,
        wgpu::DeviceType::IntegratedGpu => DeviceKind::IntegratedGpu,
        wgpu::DeviceType::VirtualGpu => DeviceKind::VirtualGpu,
        wgpu::DeviceType::Cpu => DeviceKind::SoftwareGpu,
        wgpu::DeviceType::Other => DeviceKind::Other,
    };
    let useful = USEFUL.iter().chain([&MATRICES]).filter(|(feature, _)| features.contains(*feature));
    let compiler = hlsl_compiler(info.backend, features).unwrap_or_default();
    DeviceInfo {
        name: info.name.clone(),
        kind,
        backend: info.backend.to_string(),
        driver: [&info.driver, &info.driver_info, compiler]
            .map(str::trim)
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join(" "),
        features: useful.map(|(_, name)| name.to_string()).collect(),
        limits: vec![
            ("max_buffer_size", limits.max_buffer_size),
            ("max_storage_buffer_binding_size", limits.max_storage_buffer_binding_size),
            ("max_storage_buffers_per_shader_stage", limits.max_storage_buffers_per_shader_stage.into()),
            ("max_compute_workgroup_storage_size", limits.max_compute_workgroup_storage_size.into()),
            ("max_compute_invocations_per_workgroup", limits.max_compute_invocations_per_workgroup.into()),
            ("min_subgroup_size", info.subgroup_min_size.into()),
            ("max_subgroup_size", info.subgroup_max_size.into()),
        ],
    }
}

/// Which compiler turns the shaders of a DX12 device into its code, as far as the features tell: wgpu loads `dxcompiler.dll`, and
/// where there is none the old compiler of Windows, for which no device has subgroups.
pub(crate) fn hlsl_compiler(backend: wgpu::Backend, features: wgpu::Features) -> Option<&'static str> {
    let dxc = features.contains(wgpu::Features::SUBGROUP);
    (backend == wgpu::Backend::Dx12).then_some(if dxc { "DXC" } else { "FXC" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dx12_devices_without_subgroups_have_the_old_compiler() {
        let (subgroups, none) = (wgpu::Features::SUBGROUP, wgpu::Features::empty());
        assert_eq!(hlsl_compiler(wgpu::Backend::Dx12, subgroups), Some("DXC"));
        assert_eq!(hlsl_compiler(wgpu::Backend::Dx12, none), Some("FXC"));
        assert_eq!(hlsl_compiler(wgpu::Backend::Vulkan, subgroups), None);
    }
}
