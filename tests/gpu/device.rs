//! The wgpu context: submissions, buffers, and every way in which a device can fail.

use crate::common::gpu;

use rails_wgpu::Error;
use rails_wgpu::backend::gpu::{Bind, Gpu, KernelSpec, Recorder, grid_1d};

const DOUBLE: &str = "
struct Params { n: u32, add: u32 }
override WG: u32 = 64u;
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let i = (group.x + group.y * groups.x) * WG + lane;
    if i < params.n { y[i] = 2u * x[i] + params.add; }
}";

fn double() -> KernelSpec {
    KernelSpec::new("double", DOUBLE, &[Bind::Params, Bind::Read, Bind::Write])
}

/// y = 2 x + add, `times` times over, in one submission.
fn run(recorder: &mut Recorder, x: &[u32], add: u32, times: usize) -> rails_wgpu::Result<Vec<u32>> {
    let mut y = recorder.upload(x);
    for _ in 0..times {
        let next = recorder.temporary(4 * x.len() as u64);
        recorder.dispatch(&double(), &[x.len() as u32, add], &[&y, &next], grid_1d((x.len() as u64).div_ceil(64)));
        y = next;
    }
    Ok(bytemuck::pod_collect_to_vec(&recorder.read_bytes(&y)?))
}

fn assert_works(gpu: &std::sync::Arc<Gpu>) {
    assert_eq!(run(&mut Recorder::new(gpu), &[1, 2, 3], 1, 1).unwrap(), [3, 5, 7]);
}

#[test]
fn dispatches_of_one_submission_run_in_order_and_reuse_buffers() {
    let Some(gpu) = gpu::shared() else { return };
    let x: Vec<u32> = (0..1000).collect();
    for add in 0..3 {
        let found = run(&mut Recorder::new(&gpu), &x, add, 20).unwrap();
        assert!(found.iter().zip(&x).all(|(y, x)| *y == (x << 20) + add * ((1 << 20) - 1)));
    }
}

#[test]
fn grids_beyond_65535_groups_are_folded() {
    let Some(gpu) = gpu::shared() else { return };
    let spec = double().with_constant("WG", 1.0);
    let x: Vec<u32> = (0..70_000).collect();
    let mut recorder = Recorder::new(&gpu);
    let (from, to) = (recorder.upload(&x), recorder.temporary(4 * 70_000));
    recorder.dispatch(&spec, &[70_000u32, 5], &[&from, &to], grid_1d(70_000));
    let found: Vec<u32> = bytemuck::pod_collect_to_vec(&recorder.read_bytes(&to).unwrap());
    assert!(found.iter().zip(&x).all(|(y, x)| *y == 2 * x + 5));
}

#[test]
fn copies_clears_and_slices_keep_their_place() {
    let Some(gpu) = gpu::shared() else { return };
    let mut recorder = Recorder::new(&gpu);
    let x = gpu.upload(&(0..256u32).collect::<Vec<_>>()).unwrap();
    let y = gpu.buffer(1024).unwrap();
    recorder.copy(&x.slice(512..520), &y.slice(4..1024));
    let first = recorder.read_all(&[&y.slice(0..16), &x.slice(8..12), &y.slice(16..16)]).unwrap();
    assert_eq!(bytemuck::pod_collect_to_vec::<u8, u32>(&first[0]), [0, 128, 129, 0]);
    assert_eq!(bytemuck::pod_collect_to_vec::<u8, u32>(&first[1]), [2]);
    assert!(first[2].is_empty());
    recorder.clear(&y.slice(4..8));
    assert_eq!(recorder.read_bytes(&y.slice(0..12)).unwrap(), [0, 0, 0, 0, 0, 0, 0, 0, 129, 0, 0, 0]);
}

#[test]
fn empty_work_is_no_work() {
    let Some(gpu) = gpu::shared() else { return };
    assert_eq!(run(&mut Recorder::new(&gpu), &[], 0, 2).unwrap(), [0u32; 0]);
    Recorder::new(&gpu).submit().unwrap();
}

/// Each thread also polls for the others: a read must wait for its own answer wherever that turns up.
#[test]
fn recorders_of_several_threads_do_not_disturb_each_other() {
    let Some(gpu) = gpu::shared() else { return };
    std::thread::scope(|scope| {
        for thread in 0..8u32 {
            let gpu = &gpu;
            scope.spawn(move || {
                let x: Vec<u32> = (0..500).map(|i| i * 7 + thread).collect();
                for round in 0..100 {
                    let found = run(&mut Recorder::new(gpu), &x, round, 3).unwrap();
                    assert!(found.iter().zip(&x).all(|(y, x)| *y == 8 * x + 7 * round));
                }
            });
        }
    });
}

#[test]
fn a_wrong_kernel_is_an_error_and_the_device_goes_on() {
    let Some(gpu) = gpu::shared() else { return };
    let broken = KernelSpec::new("broken", "fn main( {", double().bindings());
    let error = gpu.kernel(&broken).unwrap_err().to_string();
    assert!(error.contains("broken") && error.contains("expected"), "{error}");

    let misbound = KernelSpec::new("misbound", DOUBLE, &[Bind::Params, Bind::Read, Bind::Read]);
    let error = gpu.kernel(&misbound).unwrap_err().to_string();
    assert!(error.contains("misbound") && error.contains("y"), "{error}");

    let constant = double().with_constant("NO_SUCH", 1.0);
    assert!(gpu.kernel(&constant).unwrap_err().to_string().contains("NO_SUCH"));

    let mut recorder = Recorder::new(&gpu);
    let x = recorder.upload(&[1u32]);
    recorder.dispatch(&double(), &[1u32, 0], &[&x], [1, 1, 1]);
    let error = recorder.read_bytes(&x).unwrap_err().to_string();
    assert!(error.contains("expected 2 buffers, found 1"), "{error}");
    assert_eq!(run(&mut recorder, &[4], 0, 1).unwrap(), [8], "the same recorder works again");

    let mut recorder = Recorder::new(&gpu);
    let x = recorder.upload(&[1u32]);
    recorder.dispatch(&double(), &[1u32, 0], &[&x, &x], [1, 1, 1]);
    let error = recorder.submit().unwrap_err();
    assert!(matches!(&error, Error::Device { .. }) && error.to_string().contains("submit"), "{error}");
    assert_works(&gpu);
}

#[test]
fn what_is_too_large_is_an_error_with_both_numbers() {
    let Some(gpu) = gpu::shared() else { return };
    let most = gpu.limits().max_buffer_size;
    let error = gpu.buffer(most + 4).unwrap_err();
    assert!(matches!(error, Error::Limit { need, have, .. } if need == most + 4 && have == most), "{error}");
    let mut recorder = Recorder::new(&gpu);
    let x = recorder.temporary(most + 4);
    assert!(matches!(recorder.read_bytes(&x), Err(Error::Limit { .. })));
    assert_works(&gpu);
}

#[test]
fn a_lost_device_is_an_error_and_a_new_one_works() {
    let Some(adapter) = gpu::adapter() else { return };
    let gpu = Gpu::open(&adapter).unwrap();
    let kept = gpu.upload(&[1u32, 2]).unwrap();
    let mut recorded = Recorder::new(&gpu);
    let target = recorded.temporary(8);
    recorded.dispatch(&double(), &[2u32, 0], &[&kept, &target], [1, 1, 1]);
    assert_works(&gpu);
    gpu.device().destroy();
    let errors = [
        recorded.read_bytes(&target).unwrap_err(),
        gpu.check().unwrap_err(),
        gpu.upload(&[1u32]).unwrap_err(),
        gpu.kernel(&KernelSpec::new("other", DOUBLE, double().bindings())).unwrap_err(),
        run(&mut recorded, &[1], 0, 1).unwrap_err(),
        Recorder::new(&gpu).read_bytes(&kept).unwrap_err(),
    ];
    for error in errors {
        let text = error.to_string();
        assert!(text.contains("lost") && text.contains("build the index again"), "{text}");
    }
    drop((gpu, kept, target, recorded));
    assert_works(&Gpu::open(&adapter).unwrap());
}

#[test]
fn a_host_application_lends_its_device() {
    let Some(own) = gpu::shared() else { return };
    let lent = Gpu::from_device(own.device().clone(), own.queue().clone()).unwrap();
    assert_eq!(lent.info().name, own.info().name);
    assert_works(&lent);
    let Some(adapter) = gpu::adapter() else { return };
    let host = Gpu::open(&adapter).unwrap();
    let lent = Gpu::from_device(host.device().clone(), host.queue().clone()).unwrap();
    let x = lent.upload(&[1u32]).unwrap();
    host.device().destroy();
    assert!(matches!(Recorder::new(&lent).read_bytes(&x), Err(Error::Device { .. })));
    lent.mark_lost("the host said so");
    let error = Recorder::new(&lent).read_bytes(&x).unwrap_err().to_string();
    assert!(error.contains("lost (the host said so)"), "{error}");
}
