//! `rails-bench demo`.

use clap::Args;
use rails_wgpu::Result;
use rails_wgpu::demo::Demo;

use crate::eval::{RunArgs, evaluate};
use crate::options::DeviceArgs;

#[derive(Args)]
pub struct DemoArgs {
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    run: RunArgs,
}

pub fn run(args: &DemoArgs) -> Result<()> {
    let demo = Demo::load()?;
    evaluate(&demo.model, &demo.item_ids, &demo.dataset.sequences, &args.device, &args.run)
}
