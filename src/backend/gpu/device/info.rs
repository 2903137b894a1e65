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
    DeviceInfo {
        name: info.name.clone(),
        kind,
        backend: info.backend.to_string(),
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_string(),
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
