//! The devices of this machine.

use std::ffi::{CString, c_char};

use super::ffi::{RwStatus, guarded, hand_out, places, reference, release};
use crate::Error;
use crate::backend::select::Device;

/// The devices of this machine, as they were when they were listed.
pub struct RwDevices {
    devices: Vec<Words>,
}

struct Words {
    name: CString,
    kind: CString,
    backend: CString,
    driver: CString,
}

/// A device in words, which live as long as the list.
#[repr(C)]
pub struct RwDeviceInfo {
    /// Its name; any part of it chooses the device.
    pub name: *const c_char,
    /// "native CPU", "discrete GPU", "integrated GPU", "virtual GPU", "software GPU" or "unknown".
    pub kind: *const c_char,
    /// "native", "vulkan", "metal" or "dx12".
    pub backend: *const c_char,
    /// Driver name and version.
    pub driver: *const c_char,
}

/// Lists the devices, the CPU first.
///
/// # Safety
/// `out` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rw_devices_list(out: *mut *mut RwDevices) -> RwStatus {
    // Drivers may put anything into their names.
    let text = |words: &str| CString::new(words.replace('\0', " ")).unwrap_or_default();
    let words = |device: &Device| {
        let info = device.info();
        let kind = info.kind.name();
        Words { name: text(&info.name), kind: text(kind), backend: text(&info.backend), driver: text(&info.driver) }
    };
    let list = || Ok(RwDevices { devices: Device::all().iter().map(words).collect() });
    // SAFETY: the caller vouches for it.
    guarded(|| unsafe { hand_out(out, list) })
}

/// Number of devices; 0 for null.
///
/// # Safety
/// `devices` is null or a live list.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rw_devices_len(devices: *const RwDevices) -> usize {
    // SAFETY: the caller vouches for it.
    unsafe { devices.as_ref() }.map_or(0, |devices| devices.devices.len())
}

/// Describes device number `index`.
///
/// # Safety
/// `devices` is null or a live list, `out` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rw_devices_get(devices: *const RwDevices, index: usize, out: *mut RwDeviceInfo) -> RwStatus {
    guarded(|| {
        // SAFETY: the caller vouches for both.
        let (devices, out) = unsafe { (&reference("devices", devices)?.devices, places("out", out, 1)?) };
        let beyond = || Error::argument("index", format!("less than {} (number of devices)", devices.len()), index);
        let words = devices.get(index).ok_or_else(beyond)?;
        out[0].write(RwDeviceInfo {
            name: words.name.as_ptr(),
            kind: words.kind.as_ptr(),
            backend: words.backend.as_ptr(),
            driver: words.driver.as_ptr(),
        });
        Ok(())
    })
}

/// Releases a list of devices.
///
/// # Safety
/// `devices` is null or a live list, which ends here.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rw_devices_free(devices: *mut RwDevices) {
    // SAFETY: the caller vouches for it.
    unsafe { release(devices) }
}
