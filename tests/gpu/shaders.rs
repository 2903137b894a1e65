//! Every file of `shaders/` as the host compiles it: valid, with the bindings and parameters that the host thinks it
//! has, within the limits of every device, and translatable for every backend.

use std::path::{Path, PathBuf};

use naga::back::{glsl, hlsl, msl, spv};
use naga::proc::BoundsCheckPolicies;
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Module, ShaderStage, StorageAccess, TypeInner};
use rails_wgpu::backend::gpu::{Bind, KernelSpec, ParamsLayout, kernel_specs};

/// What any WebGPU device offers.
const WORKGROUP_BYTES: u32 = 16384;
const INVOCATIONS: u32 = 256;
const STORAGE_BUFFERS: usize = 8;

/// What a device with cooperative matrices offers besides.
const COOPERATIVE_WORKGROUP_BYTES: u32 = 32768;

/// Whether only some devices run the kernel: Vulkan and Metal have cooperative matrices.
fn is_cooperative(spec: &KernelSpec) -> bool {
    spec.wgsl().contains("enable wgpu_cooperative_matrix;")
}

/// Whether a kernel asks for its subgroup; there is another one for devices that do not know.
fn uses_subgroups(spec: &KernelSpec) -> bool {
    spec.wgsl().contains("@builtin(subgroup_id)")
}

/// The kernel with its overrides resolved.
fn compiled(spec: &KernelSpec) -> Result<(Module, ModuleInfo), String> {
    let wgsl = spec.wgsl();
    let module = naga::front::wgsl::parse_str(&wgsl).map_err(|error| error.emit_to_string(&wgsl))?;
    // Packing of halves: every Vulkan, Metal and DX12 device can do it.
    let cooperative = Capabilities::SHADER_FLOAT16 | Capabilities::SUBGROUP | Capabilities::COOPERATIVE_MATRIX;
    let more = if is_cooperative(spec) {
        cooperative
    } else if uses_subgroups(spec) {
        Capabilities::SUBGROUP
    } else {
        Capabilities::empty()
    };
    let capabilities = Capabilities::SHADER_FLOAT16_IN_FLOAT32 | more;
    let mut validator = Validator::new(ValidationFlags::all(), capabilities);
    let info = validator.validate(&module).map_err(|error| error.emit_to_string(&wgsl))?;
    let mut constants = naga::back::PipelineConstants::default();
    for (name, value) in spec.constants() {
        constants.insert(name.to_string(), *value);
    }
    let entry = Some((ShaderStage::Compute, "main"));
    let resolved = naga::back::pipeline_constants::process_overrides(&module, &info, entry, &constants);
    let (module, info) = resolved.map_err(|error| error.to_string())?;
    Ok((module.into_owned(), info.into_owned()))
}

/// The bindings of the shader, in the order of their numbers.
fn bindings(module: &Module) -> Vec<(u32, u32, Bind)> {
    let bound = module.global_variables.iter().filter_map(|(_, variable)| {
        let binding = variable.binding?;
        let bind = match variable.space {
            AddressSpace::Uniform if binding.binding == 0 => Bind::Params,
            AddressSpace::Uniform => Bind::Uniform,
            AddressSpace::Storage { access } if access == StorageAccess::LOAD => Bind::Read,
            AddressSpace::Storage { .. } => Bind::Write,
            other => panic!("a binding in {other:?}"),
        };
        Some((binding.group, binding.binding, bind))
    });
    let mut bound: Vec<_> = bound.collect();
    bound.sort_by_key(|(group, binding, _)| (*group, *binding));
    bound
}

fn check_bindings(spec: &KernelSpec, module: &Module) -> Result<(), String> {
    let expected: Vec<_> = (0..).zip(spec.bindings()).map(|(binding, bind)| (0, binding, *bind)).collect();
    let found = bindings(module);
    if found == expected { Ok(()) } else { Err(format!("{}: {found:?} instead of {expected:?}", spec.label())) }
}

fn check_params(label: &str, layout: &ParamsLayout, module: &Module) -> Result<(), String> {
    let is_first = |variable: &naga::GlobalVariable| variable.binding.is_some_and(|binding| binding.binding == 0);
    let uniform = module.global_variables.iter().find(|(_, variable)| is_first(variable));
    let (_, uniform) = uniform.ok_or_else(|| format!("{label}: no uniform"))?;
    let TypeInner::Struct { members, span } = &module.types[uniform.ty].inner else {
        return Err(format!("{label}: the uniform is no struct"));
    };
    let found: Vec<_> =
        members.iter().map(|member| (member.name.as_deref().unwrap(), member.offset as usize)).collect();
    if found == layout.fields && *span as usize == layout.size {
        Ok(())
    } else {
        Err(format!("{label}: {span} bytes, {found:?} instead of {layout:?}"))
    }
}

#[test]
fn host_and_shader_agree() {
    for (spec, layout) in kernel_specs() {
        let (module, _) = compiled(&spec).unwrap_or_else(|error| panic!("{}: {error}", spec.label()));
        check_bindings(&spec, &module).unwrap();
        check_params(spec.label(), &layout, &module).unwrap();
    }
}

#[test]
fn disagreement_is_noticed() {
    let (spec, layout) = kernel_specs().swap_remove(0);
    let (module, _) = compiled(&spec).unwrap();
    let bindings: &[Bind] = &[Bind::Params, Bind::Read, Bind::Write, Bind::Write];
    assert!(check_bindings(&KernelSpec::new("x", "", bindings), &module).is_err());
    assert!(check_bindings(&KernelSpec::new("x", "", &bindings[..3]), &module).is_err());
    assert!(check_params("x", &ParamsLayout { size: layout.size + 4, ..layout }, &module).is_err());
    assert!(check_params("x", &ParamsLayout { fields: &[("n", 0), ("width", 8)], ..layout }, &module).is_err());
    assert!(check_params("x", &ParamsLayout { fields: &[("n", 0), ("height", 4)], ..layout }, &module).is_err());
    assert!(compiled(&spec.with_constant("NO_SUCH", 1.0)).is_err());
    assert!(compiled(&KernelSpec::new("x", "fn main() { let x: u32 = 1.0; }", bindings)).is_err());
}

#[test]
fn kernels_stay_within_the_limits_of_every_device() {
    for (spec, _) in kernel_specs() {
        let (module, _) = compiled(&spec).unwrap();
        let shared = module.global_variables.iter().filter(|(_, variable)| variable.space == AddressSpace::WorkGroup);
        let bytes: u32 = shared.map(|(_, variable)| module.types[variable.ty].inner.size(module.to_ctx())).sum();
        let most = if is_cooperative(&spec) { COOPERATIVE_WORKGROUP_BYTES } else { WORKGROUP_BYTES };
        assert!(bytes <= most, "{}: {bytes} bytes of workgroup memory", spec.label());
        let size = module.entry_points[0].workgroup_size;
        assert!(size.iter().product::<u32>() <= INVOCATIONS && size[2] <= 64, "{}: {size:?}", spec.label());
        assert!(spec.bindings().len() <= STORAGE_BUFFERS + 1, "{}", spec.label());
    }
}

#[test]
fn kernels_translate_for_every_backend_that_runs_them() {
    let stage = ShaderStage::Compute;
    for (spec, _) in kernel_specs() {
        let (module, info) = compiled(&spec).unwrap();
        let fail = |error: &dyn std::error::Error| -> ! { panic!("{}: {error}", spec.label()) };

        let entry = spv::PipelineOptions { shader_stage: stage, entry_point: "main".into() };
        let words = spv::write_vec(&module, &info, &spv::Options::default(), Some(&entry));
        assert!(words.unwrap_or_else(|error| fail(&error)).len() > 100);

        let entry = msl::PipelineOptions { entry_point: Some((stage, "main".into())), ..Default::default() };
        let options = msl::Options { lang_version: (2, 4), ..Default::default() };
        let (_, translation) = msl::write_string(&module, &info, &options, &entry).unwrap_or_else(|error| fail(&error));
        assert!(translation.entry_point_names[0].is_ok());

        if is_cooperative(&spec) {
            continue;
        }
        // The writer panics without a target for immediates, even where there are none.
        let options = hlsl::Options { immediates_target: Some(Default::default()), ..Default::default() };
        let entry = hlsl::PipelineOptions { entry_point: Some((stage, "main".into())) };
        let mut text = String::new();
        let written = hlsl::Writer::new(&mut text, &options, &entry).write(&module, &info, None);
        assert_eq!(written.unwrap_or_else(|error| fail(&error)).entry_point_names.len(), 1);

        // OpenGL has no subgroups.
        if uses_subgroups(&spec) {
            continue;
        }
        let entry = glsl::PipelineOptions { shader_stage: stage, entry_point: "main".into(), multiview: None };
        let (mut text, options, policies) = (String::new(), glsl::Options::default(), BoundsCheckPolicies::default());
        let written = glsl::Writer::new(&mut text, &module, &info, &options, &entry, policies);
        written.and_then(|mut writer| writer.write()).unwrap_or_else(|error| fail(&error));
    }
}

/// All files of `shaders/`, from the root of the repository, wherever the test was compiled.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

#[test]
fn files_are_listed_and_laid_out_as_agreed() {
    let specs = kernel_specs();
    for path in files_below(Path::new("shaders")) {
        let label = path.file_stem().unwrap().to_str().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with(&format!("// {label}: ")), "{label}: the header names the file");
        let header = |word: &str| text.lines().find_map(|line| line.strip_prefix("//")?.split_once(word));
        // Files of folders `lib` are parts of kernels.
        if !path.parent().unwrap().ends_with("lib") {
            assert!(specs.iter().any(|(spec, _)| spec.label() == label), "no kernel uses {label}.wgsl");
            assert!(header("grid ").is_some(), "{label}: no grid");
            assert!(header("twin ").is_some(), "{label}: no twin");
        }
        if let Some((_, twin)) = header("twin ") {
            assert!(Path::new(twin).is_file(), "{label}: its twin {twin} does not exist");
        }
        let has_loop = text.lines().any(|line| ["for (", "while "].iter().any(|word| line.trim().starts_with(word)));
        assert_eq!(has_loop, header(" loop").is_some(), "{label}: the header says where loops end");
        // An override behind a workgroup array whose size depends on it panics inside wgpu.
        let code = text.lines().filter(|line| !line.is_empty() && !line.starts_with("//"));
        let late = code.skip_while(|line| line.starts_with("override ")).find(|line| line.starts_with("override "));
        assert_eq!(late, None, "{label}: overrides come first");
    }
}
