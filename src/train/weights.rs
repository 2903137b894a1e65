//! The parameters of a model as a list, in one order.

use crate::config::ModelConfig;
use crate::model::{Encoder, Model, Mol};
use crate::tensor::Tensor;

/// Place of the item table in the list.
pub const ITEMS: usize = 0;

/// A model whose arrays are anywhere.
#[derive(Clone, Debug)]
pub struct Weights<T> {
    pub encoder: Encoder<T>,
    pub mol: Option<Mol<T>>,
    pub output_items: Option<T>,
    pub output_bias: Option<T>,
}

/// The shapes of all tensors of a model.
#[derive(Clone, Debug)]
pub struct Shapes {
    config: ModelConfig,
    shapes: Weights<Vec<usize>>,
}

impl<T> Weights<T> {
    fn map<U>(&self, mut f: impl FnMut(&T) -> U) -> Weights<U> {
        let encoder = self.encoder.map(&mut f);
        Weights {
            encoder,
            mol: self.mol.as_ref().map(|mol| mol.map(&mut f)),
            output_items: self.output_items.as_ref().map(&mut f),
            output_bias: self.output_bias.as_ref().map(&mut f),
        }
    }
}

/// All tensors of a model; the item table is the first.
pub fn tensors(model: &Model) -> Vec<Tensor> {
    let mut tensors = Vec::new();
    let mut add = |tensor: &Tensor| tensors.push(tensor.clone());
    model.encoder.map(&mut add);
    model.mol.iter().for_each(|mol| _ = mol.map(&mut add));
    model.output_items.iter().chain(&model.output_bias).for_each(add);
    tensors
}

impl Shapes {
    /// Those of a model.
    pub fn of(model: &Model) -> Shapes {
        let Model { encoder, mol, output_items, output_bias, .. } = model.clone();
        let weights = Weights { encoder, mol, output_items, output_bias };
        Shapes { config: model.config.clone(), shapes: weights.map(|tensor| tensor.shape().to_vec()) }
    }

    /// Hyper-parameters of the model.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The model with the arrays of a list in place of its tensors.
    pub fn place<T>(&self, arrays: impl IntoIterator<Item = T>) -> Weights<T> {
        let mut arrays = arrays.into_iter();
        self.shapes.map(|_| arrays.next().expect("one array for each tensor"))
    }

    /// The model with these values of its tensors.
    pub fn model(&self, values: impl IntoIterator<Item = Vec<f32>>) -> Model {
        let mut values = values.into_iter();
        let Weights { encoder, mol, output_items, output_bias } = self.shapes.map(|shape| {
            let n_values = shape.iter().product();
            Tensor::trusted(shape.clone(), values.next().unwrap_or_else(|| vec![0.0; n_values]))
        });
        Model { config: self.config.clone(), encoder, mol, output_items, output_bias }
    }

    /// Number of values of the tensor of this number.
    pub fn n_values(&self, number: usize) -> usize {
        let mut n_values = Vec::new();
        self.shapes.map(|shape| n_values.push(shape.iter().product()));
        n_values[number]
    }

    /// A checkpoint's name of the tensor of this number, or of the one that it is a part of there.
    pub fn name(&self, number: usize) -> String {
        let mut tensors = Vec::new();
        self.shapes.map(|shape| tensors.push(vec![0.0; shape.iter().product()]));
        tensors[number].fill(1.0);
        let named = self.model(tensors).named_tensors();
        let found = named.into_iter().find(|(_, tensor)| tensor.data().contains(&1.0));
        found.map_or_else(|| "a tensor without values".to_string(), |(name, _)| name)
    }
}
