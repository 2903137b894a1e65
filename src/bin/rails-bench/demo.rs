//! `rails-bench demo`.

#[path = "../../../assets/demo.rs"]
mod assets;

use clap::Args;
use rails_wgpu::Result;

use assets::Demo;

use crate::eval::{RunArgs, evaluate};
use crate::options::DeviceArgs;
use crate::searched::Searched;

#[derive(Args)]
pub struct DemoArgs {
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    run: RunArgs,
}

pub fn run(args: &DemoArgs) -> Result<()> {
    let demo = Demo::load()?;
    let json = args.run.open_json()?;
    let searched = Searched::build(demo.model, &demo.item_ids, &args.device, &args.run.algorithm)?;
    evaluate(searched, &demo.dataset.sequences, &args.run, json)
}
