//! A Vulkan device without hardware: what its compiler makes of kernels.
#![allow(unsafe_code, reason = "Vulkan is called directly: wgpu opens no device that cannot run anything")]

use std::ffi::CStr;

use ash::{khr, vk};

use super::spirv::Compiled;

/// The device, which lives as long as the process.
pub struct Driver {
    device: ash::Device,
    properties: khr::pipeline_executable_properties::Device,
    /// Whether it multiplies matrices.
    pub matrices: bool,
}

/// What a compiler says of a kernel.
pub struct Report {
    /// Statistics by name.
    pub statistics: Vec<(String, u64)>,
    /// Machine code, disassembled.
    pub code: String,
}

const INSTRUCTIONS: &str = "the null device of Mesa's AMD driver is needed: install mesa-vulkan-drivers and libvulkan1, and set \
    VK_DRIVER_FILES to its radeon_icd.json and RADV_FORCE_FAMILY, as scripts/check-isa.sh does";

impl Driver {
    /// Opens the device that the environment names.
    pub fn open() -> Result<Driver, String> {
        // SAFETY: all calls are valid Vulkan: handles come from the driver and are used while they live, arrays are as long as the
        // driver was told, and structures are chained while the call that reads them runs.
        unsafe {
            let entry = ash::Entry::load().map_err(|error| format!("{error}; {INSTRUCTIONS}"))?;
            let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3);
            let info = vk::InstanceCreateInfo::default().application_info(&application);
            let instance = entry.create_instance(&info, None).map_err(|error| format!("{error}; {INSTRUCTIONS}"))?;
            let all = instance.enumerate_physical_devices().map_err(error)?;
            let physical = *all.first().ok_or_else(|| format!("no device; {INSTRUCTIONS}"))?;
            let mut driver = vk::PhysicalDeviceDriverProperties::default();
            let mut properties = vk::PhysicalDeviceProperties2::default().push_next(&mut driver);
            instance.get_physical_device_properties2(physical, &mut properties);
            if driver.driver_id != vk::DriverId::MESA_RADV {
                return Err(format!("found another driver; {INSTRUCTIONS}"));
            }
            let extensions = instance.enumerate_device_extension_properties(physical).map_err(error)?;
            let has = |name: &CStr| extensions.iter().any(|found| found.extension_name_as_c_str() == Ok(name));
            let matrices = has(khr::cooperative_matrix::NAME);
            let mut names = vec![khr::pipeline_executable_properties::NAME.as_ptr()];
            names.extend(matrices.then_some(khr::cooperative_matrix::NAME.as_ptr()));

            let mut executables = vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR::default();
            let mut cooperative = vk::PhysicalDeviceCooperativeMatrixFeaturesKHR::default();
            let mut v11 = vk::PhysicalDeviceVulkan11Features::default();
            let mut v12 = vk::PhysicalDeviceVulkan12Features::default();
            let mut v13 = vk::PhysicalDeviceVulkan13Features::default();
            let mut robustness = vk::PhysicalDeviceRobustness2FeaturesEXT::default();
            names.push(ash::ext::robustness2::NAME.as_ptr());
            let mut features = vk::PhysicalDeviceFeatures2::default()
                .push_next(&mut executables)
                .push_next(&mut robustness)
                .push_next(&mut v11)
                .push_next(&mut v12)
                .push_next(&mut v13);
            if matrices {
                features = features.push_next(&mut cooperative);
            }
            instance.get_physical_device_features2(physical, &mut features);
            let queues = [vk::DeviceQueueCreateInfo::default().queue_priorities(&[1.0])];
            let info = vk::DeviceCreateInfo::default()
                .queue_create_infos(&queues)
                .enabled_extension_names(&names)
                .push_next(&mut features);
            let device = instance.create_device(physical, &info, None).map_err(error)?;
            let properties = khr::pipeline_executable_properties::Device::new(&instance, &device);
            Ok(Driver { device, properties, matrices })
        }
    }

    /// Compiles a kernel.
    pub fn compile(&self, kernel: &Compiled) -> Result<Report, String> {
        let bindings: Vec<_> =
            (0..).zip(&kernel.uniforms).map(|(binding, &uniform)| layout(binding, uniform)).collect();
        // SAFETY: as in `open`; the words are a module that naga wrote and validated.
        unsafe {
            let device = &self.device;
            let info = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
            let sets = [device.create_descriptor_set_layout(&info, None).map_err(error)?];
            let info = vk::PipelineLayoutCreateInfo::default().set_layouts(&sets);
            let layout = device.create_pipeline_layout(&info, None).map_err(error)?;
            let info = vk::ShaderModuleCreateInfo::default().code(&kernel.words);
            let module = device.create_shader_module(&info, None).map_err(error)?;
            let stage = vk::PipelineShaderStageCreateInfo::default()
                .flags(vk::PipelineShaderStageCreateFlags::ALLOW_VARYING_SUBGROUP_SIZE)
                .stage(vk::ShaderStageFlags::COMPUTE)
                .module(module)
                .name(c"main");
            let flags = vk::PipelineCreateFlags::CAPTURE_STATISTICS_KHR
                | vk::PipelineCreateFlags::CAPTURE_INTERNAL_REPRESENTATIONS_KHR;
            let info = [vk::ComputePipelineCreateInfo::default().flags(flags).stage(stage).layout(layout)];
            let made = device.create_compute_pipelines(vk::PipelineCache::null(), &info, None);
            let pipeline = made.map_err(|(_, result)| error(result))?[0];
            let report = self.report(pipeline);
            device.destroy_pipeline(pipeline, None);
            device.destroy_shader_module(module, None);
            device.destroy_pipeline_layout(layout, None);
            device.destroy_descriptor_set_layout(sets[0], None);
            report
        }
    }

    /// # Safety
    /// The pipeline is one of this device.
    unsafe fn report(&self, pipeline: vk::Pipeline) -> Result<Report, String> {
        // SAFETY: as in `open`. A representation is fetched twice: for its length, and into a buffer of that length.
        unsafe {
            let executable = vk::PipelineExecutableInfoKHR::default().pipeline(pipeline).executable_index(0);
            let found = self.properties.get_pipeline_executable_statistics(&executable).map_err(error)?;
            let statistics = found.iter().map(|statistic| {
                let name = statistic.name_as_c_str().map_or(String::new(), |name| name.to_string_lossy().into_owned());
                (name, statistic.value.u64)
            });
            let get = self.properties.fp().get_pipeline_executable_internal_representations_khr;
            let mut found =
                self.properties.get_pipeline_executable_internal_representations(&executable).map_err(error)?;
            let mut n = found.len() as u32;
            let mut texts: Vec<Vec<u8>> = found.iter().map(|found| vec![0; found.data_size]).collect();
            for (found, text) in found.iter_mut().zip(&mut texts) {
                found.p_data = text.as_mut_ptr().cast();
            }
            get(self.device.handle(), &executable, &mut n, found.as_mut_ptr()).result().map_err(error)?;
            let assembly = found.iter().zip(&texts).find(|(found, _)| found.name_as_c_str() == Ok(c"Assembly"));
            let (_, code) = assembly.ok_or("the driver gives no assembly")?;
            Ok(Report { statistics: statistics.collect(), code: String::from_utf8_lossy(code).into_owned() })
        }
    }
}

fn error(result: vk::Result) -> String {
    format!("Vulkan: {result}")
}

fn layout(binding: u32, uniform: bool) -> vk::DescriptorSetLayoutBinding<'static> {
    let kind = if uniform { vk::DescriptorType::UNIFORM_BUFFER } else { vk::DescriptorType::STORAGE_BUFFER };
    vk::DescriptorSetLayoutBinding::default()
        .binding(binding)
        .descriptor_type(kind)
        .descriptor_count(1)
        .stage_flags(vk::ShaderStageFlags::COMPUTE)
}
