//! Kernels: what the host says about a WGSL file, and the compiled pipeline.

use std::borrow::Cow;
use std::hash::{Hash, Hasher};

use super::shader_checks::ShaderChecks;
use super::trusted;

/// Most workgroups along one axis of a dispatch that every device can do.
const MAX_GROUPS: u64 = 65535;

/// What a kernel's binding is, in the order of binding numbers from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bind {
    /// The uniform parameters; at most one per kernel.
    Params,
    /// A uniform buffer of fixed size, for what all threads read at the same places.
    Uniform,
    /// A storage buffer that is only read.
    Read,
    /// A storage buffer that is written.
    Write,
}

/// A kernel: its WGSL text, the values of its overrides, and its bindings (all in group 0). The entry point is `main`.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelSpec {
    /// Name: that of its file in `shaders/`.
    pub(crate) label: &'static str,
    /// Whole WGSL files, concatenated in this order: constants and aliases, functions, the kernel.
    pub(crate) sources: Vec<Cow<'static, str>>,
    /// Values for the `override`s of the file.
    pub(crate) constants: Vec<(&'static str, f64)>,
    pub(crate) bindings: &'static [Bind],
    /// Whether it is made of files of `shaders/`, all of whose loops end: see [`trusted::shader_module`].
    pub(crate) loops_end: bool,
}

impl KernelSpec {
    /// A kernel of one WGSL text, with the constants of the text itself.
    pub fn new(label: &'static str, source: &'static str, bindings: &'static [Bind]) -> KernelSpec {
        KernelSpec { loops_end: false, ..KernelSpec::of_files(label, &[source], bindings) }
    }

    /// The same with another value for an `override`.
    #[must_use]
    pub fn with_constant(mut self, name: &'static str, value: f64) -> KernelSpec {
        self.constants.push((name, value));
        KernelSpec { loops_end: false, ..self }
    }

    /// Its name.
    pub fn label(&self) -> &'static str {
        self.label
    }

    /// Values for the `override`s of the text.
    pub fn constants(&self) -> &[(&'static str, f64)] {
        &self.constants
    }

    /// Its bindings.
    pub fn bindings(&self) -> &'static [Bind] {
        self.bindings
    }

    /// A kernel of several files of `shaders/`, in this order.
    pub(crate) fn of_files(label: &'static str, files: &[&'static str], bindings: &'static [Bind]) -> KernelSpec {
        let sources = files.iter().map(|&file| Cow::Borrowed(file)).collect();
        KernelSpec { label, sources, constants: Vec::new(), bindings, loops_end: true }
    }

    /// The files that it is made of, in order; constants of the host's come first.
    #[doc(hidden)]
    pub fn sources(&self) -> impl Iterator<Item = &str> {
        self.sources.iter().map(AsRef::as_ref)
    }

    /// The WGSL text as it is compiled.
    pub fn wgsl(&self) -> String {
        self.sources.concat()
    }
}

/// Constants are never NaN.
impl Eq for KernelSpec {}

/// Label and constants tell nearly all kernels apart; reading kilobytes of text for each dispatch would not pay.
impl Hash for KernelSpec {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.label.hash(state);
        for (name, value) in &self.constants {
            (name, value.to_bits()).hash(state);
        }
    }
}

/// `wgsl!("room/file.wgsl")`: the text of a file of `shaders/`.
macro_rules! wgsl {
    ($path:expr) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/", $path))
    };
}
pub(crate) use wgsl;

/// Size and field offsets, in bytes, of a struct of uniform parameters on the host's side.
#[derive(Clone, Copy, Debug)]
pub struct ParamsLayout {
    /// Bytes of the struct.
    pub size: usize,
    /// Name and offset of each field.
    pub fields: &'static [(&'static str, usize)],
}

/// `params!(Name { field: u32, ... })`: the host's side of a kernel's `Params`, and its layout.
macro_rules! params {
    ($name:ident { $($field:ident: $type:ty),+ }) => {
        #[repr(C)]
        #[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
        pub(crate) struct $name {
            $(pub(crate) $field: $type),+
        }

        impl $name {
            pub(crate) const LAYOUT: $crate::backend::gpu::device::ParamsLayout = $crate::backend::gpu::device::ParamsLayout {
                size: size_of::<$name>(),
                fields: &[$((stringify!($field), std::mem::offset_of!($name, $field))),+],
            };
        }
    };
}
pub(crate) use params;

/// A compiled kernel.
#[derive(Debug)]
pub struct Kernel {
    pub(crate) label: &'static str,
    pub(crate) bindings: &'static [Bind],
    pub(crate) layout: wgpu::BindGroupLayout,
    pub(crate) pipeline: wgpu::ComputePipeline,
}

impl Kernel {
    pub(crate) fn compile(
        device: &wgpu::Device,
        spec: &KernelSpec,
        checks: ShaderChecks,
        cache: Option<&wgpu::PipelineCache>,
    ) -> Kernel {
        let label = Some(spec.label);
        let entries: Vec<_> = (0u32..).zip(spec.bindings).map(|(binding, bind)| layout_entry(binding, *bind)).collect();
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label, entries: &entries });
        let source = wgpu::ShaderSource::Wgsl(spec.wgsl().into());
        let descriptor = wgpu::ShaderModuleDescriptor { label, source };
        let module = match checks {
            ShaderChecks::Bounds if spec.loops_end => trusted::shader_module(device, descriptor),
            _ => device.create_shader_module(descriptor),
        };
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label,
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label,
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &spec.constants,
                // Kernels write workgroup memory before they read it.
                zero_initialize_workgroup_memory: false,
            },
            cache,
        });
        Kernel { label: spec.label, bindings: spec.bindings, layout, pipeline }
    }
}

fn layout_entry(binding: u32, bind: Bind) -> wgpu::BindGroupLayoutEntry {
    let ty = match bind {
        Bind::Params | Bind::Uniform => wgpu::BufferBindingType::Uniform,
        Bind::Read => wgpu::BufferBindingType::Storage { read_only: true },
        Bind::Write => wgpu::BufferBindingType::Storage { read_only: false },
    };
    wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
        count: None,
    }
}

/// A grid of at least `groups` workgroups, folded to two axes where one is too short. A kernel numbers its groups
/// `workgroup_id.x + workgroup_id.y * num_workgroups.x` and ignores those beyond `groups`.
pub fn grid_1d(groups: u64) -> [u32; 3] {
    let y = groups.div_ceil(MAX_GROUPS).max(1);
    [groups.div_ceil(y) as u32, y as u32, 1]
}

#[cfg(test)]
mod tests {
    use super::{KernelSpec, grid_1d};

    #[test]
    fn only_files_of_this_crate_go_without_counters_of_loops() {
        let own = KernelSpec::of_files("own", &[""], &[]);
        assert!(own.loops_end && !own.with_constant("A", 1.0).loops_end);
        assert!(!KernelSpec::new("another's", "", &[]).loops_end);
    }

    #[test]
    fn grids_cover_all_groups_with_little_waste() {
        assert_eq!(grid_1d(0), [0, 1, 1]);
        assert_eq!(grid_1d(65535), [65535, 1, 1]);
        assert_eq!(grid_1d(65536), [32768, 2, 1]);
        for groups in [1, 7, 65537, 1_000_003, 4_000_000_000] {
            let [x, y, _] = grid_1d(groups).map(u64::from);
            assert!(x <= 65535 && y <= 65535 && x * y >= groups && x * y - groups < y);
        }
    }
}
