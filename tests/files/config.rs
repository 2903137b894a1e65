//! Hyper-parameters from the reference's gin files and from JSON.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, Once};

use rails_wgpu::checkpoint::Checkpoint;
use rails_wgpu::config::{
    CONFIG_KEY, DropoutRates, EmbeddingNorm, EncoderConfig, EvaluationSchedule, FfnActivation, GatingCombination,
    GluConfig, GluNonlinearity, HstuConfig, LinearActivation, LossKind, LossWeights, ModelConfig, MolConfig,
    NegativeSampling, OutputConfig, PRESETS, SasrecConfig, SimilarityConfig, TrainConfig, find_config, preset,
};
use rails_wgpu::{Error, Parameter};

fn gin_of(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle").join(case).join("config.gin")
}

fn case(name: &str) -> ModelConfig {
    ModelConfig::from_gin(gin_of(name)).unwrap()
}

fn from_text(text: &str) -> Result<ModelConfig, Error> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gin");
    fs::write(&path, text).unwrap();
    ModelConfig::from_gin(&path)
}

/// Line, key, expected and found of the error in `text`.
fn wrong(text: &str) -> (usize, String, String, String) {
    match from_text(text) {
        Err(Error::Config { path, line, key, expected, found }) => {
            assert!(path.ends_with("model.gin"));
            (line, key, expected, found)
        }
        other => panic!("{text}: {other:?}"),
    }
}

/// The smallest files: everything that the reference requires.
const DOT: &str = "train_fn.interaction_module_type = 'DotProduct'\n";
const MOL: &str = "\
train_fn.interaction_module_type = 'MoL'
train_fn.main_module = 'HSTU'
create_mol_interaction_module.query_dot_product_groups = 8
create_mol_interaction_module.item_dot_product_groups = 4
create_mol_interaction_module.dot_product_dimension = 64
create_mol_interaction_module.temperature = 0.05
create_mol_interaction_module.query_hidden_dim = 512
create_mol_interaction_module.item_hidden_dim = -1
create_mol_interaction_module.gating_query_hidden_dim = 128
create_mol_interaction_module.gating_item_hidden_dim = 128
create_mol_interaction_module.gating_qi_hidden_dim = 128
";

/// `MOL` without the line that mentions `key`, then `line`.
fn mol_with(key: &str, line: &str) -> String {
    let kept: Vec<&str> = MOL.lines().filter(|l| !l.contains(&format!(".{key} "))).collect();
    format!("{}\n{line}\n", kept.join("\n"))
}

fn mol_of(config: &ModelConfig) -> &MolConfig {
    match &config.similarity {
        SimilarityConfig::Mol(mol) => mol,
        other => panic!("expected MoL, found {other:?}"),
    }
}

// ---- the reference's files

fn tiny_mol() -> MolConfig {
    MolConfig {
        query_dot_product_groups: 4,
        item_dot_product_groups: 2,
        dot_product_dimension: 16,
        given_components: false,
        temperature: 0.05,
        dot_product_l2_norm: true,
        eps: 1e-6,
        query_hidden: Some(GluConfig { hidden_dim: 32, nonlinearity: GluNonlinearity::Swiglu }),
        item_hidden: None,
        uid_embedding_hash_sizes: vec![50],
        gating_combination: GatingCombination::GluSilu,
        gating_query_hidden_dim: Some(20),
        gating_item_hidden_dim: Some(28),
        gating_qi_hidden_dim: Some(24),
    }
}

fn tiny() -> ModelConfig {
    ModelConfig {
        item_embedding_dim: 16,
        max_sequence_length: 12,
        gr_output_length: 10,
        user_embedding_norm: EmbeddingNorm::LayerNorm,
        item_l2_norm: false,
        l2_norm_eps: 1e-6,
        encoder: EncoderConfig::Hstu(HstuConfig {
            num_blocks: 2,
            num_heads: 2,
            dqk: 8,
            dv: 8,
            linear_activation: LinearActivation::Silu,
            concat_ua: false,
        }),
        similarity: SimilarityConfig::Mol(tiny_mol()),
        output: OutputConfig::default(),
    }
}

fn tiny_with(mol: MolConfig) -> ModelConfig {
    ModelConfig { similarity: SimilarityConfig::Mol(mol), ..tiny() }
}

#[test]
fn every_case_is_read_in_full() {
    let glu = |nonlinearity| Some(GluConfig { hidden_dim: 24, nonlinearity });
    let sasrec = |num_heads, ffn_activation| {
        EncoderConfig::Sasrec(SasrecConfig { num_blocks: 2, num_heads, ffn_hidden_dim: 24, ffn_activation })
    };
    let dot = ModelConfig {
        user_embedding_norm: EmbeddingNorm::L2Norm,
        item_l2_norm: true,
        similarity: SimilarityConfig::DotProduct,
        ..tiny()
    };
    let geglu = GluConfig { hidden_dim: 32, nonlinearity: GluNonlinearity::Geglu };
    let concat = HstuConfig {
        num_blocks: 2,
        num_heads: 2,
        dqk: 6,
        dv: 10,
        linear_activation: LinearActivation::None,
        concat_ua: true,
    };
    let none = GatingCombination::None;
    let qi_only = MolConfig {
        gating_combination: none,
        gating_query_hidden_dim: None,
        gating_item_hidden_dim: None,
        ..tiny_mol()
    };
    let linear = MolConfig { query_hidden: None, gating_qi_hidden_dim: None, ..tiny_mol() };
    let no_uid =
        MolConfig { dot_product_l2_norm: false, temperature: 1.0, uid_embedding_hash_sizes: vec![], ..tiny_mol() };
    let expected = [
        ("tiny_hstu_mol", tiny()),
        ("tiny_hstu_mol_geglu", tiny_with(MolConfig { query_hidden: Some(geglu), ..tiny_mol() })),
        ("tiny_hstu_mol_concatua", ModelConfig { encoder: EncoderConfig::Hstu(concat), ..tiny() }),
        ("tiny_hstu_mol_itemhidden", tiny_with(MolConfig { item_hidden: glu(GluNonlinearity::Geglu), ..tiny_mol() })),
        (
            "tiny_hstu_mol_itemhidden_swiglu",
            tiny_with(MolConfig { item_hidden: glu(GluNonlinearity::Swiglu), ..tiny_mol() }),
        ),
        ("tiny_hstu_mol_nol2_nouid", tiny_with(no_uid)),
        ("tiny_hstu_mol_none", tiny_with(qi_only)),
        ("tiny_hstu_mol_none_sum", tiny_with(MolConfig { gating_combination: none, ..tiny_mol() })),
        ("tiny_hstu_mol_qhidden0", tiny_with(linear)),
        ("tiny_hstu_mol_uids2", tiny_with(MolConfig { uid_embedding_hash_sizes: vec![50, 13], ..tiny_mol() })),
        ("tiny_hstu_dot", dot.clone()),
        ("tiny_sasrec_dot", ModelConfig { encoder: sasrec(2, FfnActivation::Relu), ..dot }),
        ("tiny_sasrec_mol", ModelConfig { encoder: sasrec(2, FfnActivation::Relu), ..tiny() }),
        ("tiny_sasrec_mol_gelu", ModelConfig { encoder: sasrec(1, FfnActivation::Gelu), ..tiny() }),
    ];
    for (name, config) in expected {
        assert_eq!(case(name), config, "{name}");
        let json = config.to_json();
        assert_eq!(ModelConfig::from_json(&json, "model.safetensors").unwrap(), config, "{name}");
    }
    assert_eq!(tiny().padded_length(), 23);
}

#[test]
fn what_a_file_leaves_out_is_the_references_default() {
    let config = from_text(DOT).unwrap();
    let expected = ModelConfig {
        item_embedding_dim: 240,
        max_sequence_length: 200,
        gr_output_length: 10,
        user_embedding_norm: EmbeddingNorm::L2Norm,
        item_l2_norm: false,
        l2_norm_eps: 1e-6,
        encoder: EncoderConfig::Sasrec(SasrecConfig {
            num_blocks: 2,
            num_heads: 1,
            ffn_hidden_dim: 64,
            ffn_activation: FfnActivation::Relu,
        }),
        similarity: SimilarityConfig::DotProduct,
        output: OutputConfig::default(),
    };
    assert_eq!(config, expected);

    let config = from_text(MOL).unwrap();
    let hstu = HstuConfig {
        num_blocks: 2,
        num_heads: 1,
        dqk: 64,
        dv: 64,
        linear_activation: LinearActivation::Silu,
        concat_ua: false,
    };
    assert_eq!(config.encoder, EncoderConfig::Hstu(hstu));
    let mol = mol_of(&config);
    assert!(mol.dot_product_l2_norm);
    assert_eq!((mol.eps, mol.gating_combination), (1e-6, GatingCombination::GluSilu));
    assert_eq!(mol.query_hidden, Some(GluConfig { hidden_dim: 512, nonlinearity: GluNonlinearity::Geglu }));
    assert_eq!((&mol.item_hidden, mol.uid_embedding_hash_sizes.len()), (&None, 0));
}

// ---- training

#[test]
fn how_to_train_is_read_from_the_same_files() {
    let mol = TrainConfig::from_gin(gin_of("tiny_hstu_mol")).unwrap();
    let dropout = DropoutRates::NONE
        .with_input(0.2)
        .with_hstu_linear(0.2)
        .with_attention(0.2)
        .with_feed_forward(0.2)
        .with_item(0.1)
        .with_uid(0.5)
        .with_gate_softmax(0.2);
    let expected = TrainConfig::default()
        .with_batch_size(32)
        .with_negatives(16)
        .with_temperature(1.0)
        .with_weight_decay(0.001)
        .with_dropout(dropout)
        .with_loss_weights(LossWeights::default().with_mi_loss(0.001).with_uid_embedding_l2_norm(0.1))
        .with_evaluation(EvaluationSchedule::default().with_batch_size(32));
    assert_eq!(mol, expected);
    let sasrec = TrainConfig::from_gin(gin_of("tiny_sasrec_dot")).unwrap();
    let dot = (sasrec.temperature, sasrec.weight_decay, sasrec.loss_weights);
    assert_eq!(dot, (0.05, 0.0, LossWeights::default()));
    // What the reference does where a file is silent.
    let silent = TrainConfig::parse_gin(DOT, "model.gin").unwrap();
    let expected = TrainConfig::default().with_negatives(1).with_sampling(NegativeSampling::InBatch);
    assert_eq!(silent, expected);
}

#[test]
fn what_cannot_be_trained_is_named() {
    let cases = [
        ("train_fn.loss_module = 'BCELoss'", "'SampledSoftmaxLoss' or 'FullSoftmaxLoss', found 'BCELoss'"),
        ("train_fn.sampling_strategy = 'global'", "'local' or 'in-batch' or 'popularity', found 'global'"),
        ("train_fn.loss_weights = {'mi': 0.1}", "numbers under 'mi_loss', 'uid_embedding_l2_norm', found {'mi': 0.1}"),
        ("train_fn.loss_weights = {'mi_loss': -0.1}", "a finite number, 0 or above, found -0.1"),
        ("train_fn.positional_sampling_ratio = 0.5", "1.0, all that is supported, found 0.5"),
        ("train_fn.local_batch_size = 0", "an integer from 1"),
        ("train_fn.num_negatives = 0", "an integer from 1"),
        ("train_fn.learning_rate = 0", "a finite number above 0, found 0"),
        ("train_fn.weight_decay = 1e99", "a finite number, 0 or above, found inf"),
        ("train_fn.dropout_rate = 1", "a number from 0 to below 1, found 1"),
        ("sasrec_encoder.ffn_dropout_rate = -0.1", "a number from 0 to below 1, found -0.1"),
        ("bert4rec_encoder.mask_probability = 1.5", "a number from 0 to 1, found 1.5"),
    ];
    for (line, says) in cases {
        let error = TrainConfig::parse_gin(&format!("{DOT}{line}\n"), "model.gin").unwrap_err().to_string();
        let key = line.split(' ').next().unwrap();
        assert!(error.starts_with(&format!("config model.gin:2: `{key}`: expected ")), "{error}");
        assert!(error.contains(says), "{error}");
    }
    let error = TrainConfig::default().with_max_gradient_norm(Some(0.0)).validate().unwrap_err().to_string();
    assert_eq!(error, "max_gradient_norm: expected a finite number above 0, found 0");
}

/// Sizes and rates of a preset: L, D, users per batch, epochs, negatives; blocks, heads, width of a head or of the feed-forward part;
/// dropout, decay, temperature of the loss.
type Numbers = ([usize; 5], [usize; 3], [f32; 3]);

#[test]
fn presets_have_the_published_hyper_parameters() {
    let expected: [(&str, Numbers); 18] = [
        ("ml-1m/sasrec", ([200, 50, 128, 101, 128], [2, 1, 50], [0.2, 0.0, 0.05])),
        ("ml-1m/gru4rec", ([200, 64, 128, 100, 1], [1, 0, 64], [0.0, 0.0, 1.0])),
        ("ml-1m/bert4rec", ([200, 64, 128, 200, 1], [2, 2, 256], [0.1, 0.0, 1.0])),
        ("ml-1m/hstu", ([200, 50, 128, 101, 128], [2, 1, 50], [0.2, 0.0, 0.05])),
        ("ml-1m/hstu-large", ([200, 50, 128, 101, 128], [8, 2, 25], [0.2, 1e-3, 0.05])),
        ("ml-1m/hstu-mol", ([200, 50, 128, 101, 128], [8, 2, 25], [0.2, 1e-3, 1.0])),
        ("ml-20m/sasrec", ([200, 256, 128, 101, 128], [4, 4, 256], [0.2, 0.0, 0.05])),
        ("ml-20m/gru4rec", ([200, 256, 128, 100, 1], [1, 0, 256], [0.0, 0.0, 1.0])),
        ("ml-20m/bert4rec", ([200, 256, 128, 200, 1], [2, 2, 256], [0.1, 0.0, 1.0])),
        ("ml-20m/hstu", ([200, 256, 128, 101, 128], [4, 4, 64], [0.2, 0.0, 0.05])),
        ("ml-20m/hstu-large", ([200, 256, 128, 101, 128], [16, 8, 32], [0.2, 0.0, 0.05])),
        ("ml-20m/hstu-mol", ([200, 256, 128, 151, 128], [16, 8, 32], [0.2, 1e-3, 1.0])),
        ("amzn-books/sasrec", ([50, 64, 128, 201, 512], [4, 4, 64], [0.5, 0.0, 0.05])),
        ("amzn-books/gru4rec", ([50, 64, 128, 100, 512], [1, 0, 64], [0.0, 0.0, 1.0])),
        ("amzn-books/bert4rec", ([50, 64, 128, 200, 512], [2, 2, 256], [0.1, 0.0, 1.0])),
        ("amzn-books/hstu", ([50, 64, 128, 201, 512], [4, 4, 16], [0.5, 0.0, 0.05])),
        ("amzn-books/hstu-large", ([50, 64, 128, 201, 512], [16, 8, 8], [0.5, 0.0, 0.05])),
        ("amzn-books/hstu-mol", ([50, 64, 64, 201, 512], [16, 8, 8], [0.5, 1e-3, 1.0])),
    ];
    assert_eq!(PRESETS.iter().map(|(name, _)| *name).collect::<Vec<_>>(), expected.each_ref().map(|(name, _)| *name));
    for (name, numbers) in expected {
        let (model, train) = preset(name).unwrap();
        let sizes =
            [model.max_sequence_length, model.item_embedding_dim, train.batch_size, train.epochs, train.negatives];
        let dropout = train.dropout;
        let (encoder, rate) = match &model.encoder {
            EncoderConfig::Hstu(hstu) => {
                assert_eq!(hstu.dqk, hstu.dv, "{name}");
                ([hstu.num_blocks, hstu.num_heads, hstu.dqk], dropout.hstu_linear)
            }
            EncoderConfig::Sasrec(sasrec) => {
                assert_eq!((dropout.attention, sasrec.ffn_activation), (dropout.feed_forward, FfnActivation::Relu));
                ([sasrec.num_blocks, sasrec.num_heads, sasrec.ffn_hidden_dim], dropout.feed_forward)
            }
            EncoderConfig::Gru4rec(gru) => {
                assert!(gru.bias && !gru.dense, "{name}");
                ([gru.num_layers, 0, gru.hidden_dim], 0.0)
            }
            EncoderConfig::Bert4rec(bert) => {
                assert_eq!((dropout.attention, bert.ffn_activation), (dropout.feed_forward, FfnActivation::Gelu));
                assert!(bert.embedding_norm && !bert.norm_first && !bert.final_norm && !bert.output_head, "{name}");
                assert_eq!((bert.layer_norm_eps, train.mask_probability), (1e-12, 0.2), "{name}");
                ([bert.num_blocks, bert.num_heads, bert.ffn_hidden_dim], dropout.feed_forward)
            }
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!((sizes, encoder, [rate, train.weight_decay, train.temperature]), numbers, "{name}");
        let is_mol = name.ends_with("mol");
        let is_of_others = name.ends_with("4rec");
        let is_full = is_of_others && !name.starts_with("amzn-books");
        assert_eq!(train.loss == LossKind::FullSoftmax, is_full, "{name}");
        let has_norms = !is_mol && !is_of_others;
        assert_eq!((dropout.input, model.item_l2_norm, train.learning_rate), (rate, has_norms, 1e-3), "{name}");
        let sampling = if is_full { NegativeSampling::InBatch } else { NegativeSampling::Uniform };
        assert_eq!((train.sampling, train.warmup_steps, train.max_gradient_norm), (sampling, 0, None), "{name}");
        let norm = match is_of_others {
            true => EmbeddingNorm::None,
            false if is_mol => EmbeddingNorm::LayerNorm,
            false => EmbeddingNorm::L2Norm,
        };
        assert_eq!(
            (model.user_embedding_norm, train.loss_weights == LossWeights::default()),
            (norm, !is_mol),
            "{name}"
        );
    }
    let shape = |name: &str| {
        let (model, train) = preset(name).unwrap();
        let mol = mol_of(&model);
        let components = [mol.query_dot_product_groups, mol.item_dot_product_groups, mol.dot_product_dimension];
        let uids = mol.uid_embedding_hash_sizes.clone();
        (components, uids, train.dropout.uid, train.dropout.gate_cross, train.loss_weights.uid_embedding_l2_norm)
    };
    assert_eq!(shape("ml-1m/hstu-mol"), ([8, 4, 64], vec![6040], 0.5, 0.0, 0.1));
    assert_eq!(shape("ml-20m/hstu-mol"), ([8, 4, 128], vec![16384], 0.8, 0.1, 0.1));
    assert_eq!(shape("amzn-books/hstu-mol"), ([8, 8, 32], vec![], 0.5, 0.0, 0.0));
    let (_, train) = preset("ml-1m/hstu-mol").unwrap();
    assert_eq!((train.dropout.item, train.dropout.gate_softmax, train.loss_weights.mi_loss), (0.1, 0.2, 1e-3));
    let error = preset("ml-1m/bprmf").unwrap_err().to_string();
    assert!(
        error.starts_with("preset: expected ml-1m/sasrec, ml-1m/gru4rec, ") && error.ends_with("found `ml-1m/bprmf`")
    );
}

// ---- the language

#[test]
fn the_language_is_read() {
    let text = "\
# a comment, then a byte order of things\r
WIDTH = 48   # a macro
SIZES = [%WIDTH, 13]
import modeling.sequential
train_fn.item_embedding_dim = %WIDTH\r
train_fn.item_embedding_dim = 1_6 # the later counts
modeling.train.train_fn.max_sequence_length = \\
    +30
train_fn.loss_weights = {\"a\": 0.1,
    'b': (1, 2,), # inside brackets
}
train_fn.interaction_module_type = \"MoL\"
train_fn.l2_norm_eps = 1E-3
train_fn.dataset_name = 'it\\'s # not a comment'
train_fn.loss_module = @module.Loss()
create_mol_interaction_module.uid_embedding_hash_sizes = %SIZES
create_mol_interaction_module.temperature = 1
";
    let mol: Vec<&str> = MOL.lines().skip(2).filter(|line| !line.contains("temperature")).collect();
    let config = from_text(&format!("{text}{}", mol.join("\n"))).unwrap();
    assert_eq!((config.item_embedding_dim, config.max_sequence_length, config.l2_norm_eps), (16, 30, 1e-3));
    assert_eq!(mol_of(&config).uid_embedding_hash_sizes, [48, 13]);
    assert_eq!(mol_of(&config).temperature, 1.0);
}

#[test]
fn wrong_lines_are_named() {
    let cases: [(&str, usize, &str, &str); 22] = [
        ("train_fn.item_l2_norm True", 2, "train_fn.item_l2_norm", "`=`"),
        ("train_fn.item_l2_norm =", 2, "train_fn.item_l2_norm", "a number, a string"),
        ("train_fn.item_l2_norm = true", 2, "train_fn.item_l2_norm", "True, False"),
        ("train_fn.item_l2_norm = True False", 2, "train_fn.item_l2_norm", "the end of the line"),
        ("= 3", 2, "", "function.parameter"),
        ("!", 2, "", "function.parameter"),
        ("train_fn.dataset_name = 'ml", 3, "train_fn.dataset_name", "closing quote"),
        ("train_fn.dataset_name = [1, 2", 3, "train_fn.dataset_name", "`,` or a closing bracket"),
        ("train_fn.dataset_name = {1 2}", 2, "train_fn.dataset_name", "`:`"),
        ("train_fn.l2_norm_eps = 1e-", 2, "train_fn.l2_norm_eps", "a number"),
        ("train_fn.l2_norm_eps = nan", 2, "train_fn.l2_norm_eps", "a number"),
        ("train_fn.num_epochs = 99999999999999999999", 2, "train_fn.num_epochs", "a number"),
        ("train_fn.item_embedding_dim = %D", 2, "train_fn.item_embedding_dim", "a macro that is defined"),
        ("A = %B\nB = %A\ntrain_fn.item_embedding_dim = %A", 4, "train_fn.item_embedding_dim", "defined by itself"),
        ("include 'base.gin'", 2, "include", "one file"),
        ("eval/train_fn.num_epochs = 3", 2, "eval/train_fn.num_epochs", "without a scope"),
        ("train_fn.item_embedding_dim = '16'", 2, "train_fn.item_embedding_dim", "a non-negative integer"),
        ("train_fn.item_embedding_dim = 16.0", 2, "train_fn.item_embedding_dim", "a non-negative integer"),
        ("train_fn.item_embedding_dim = True", 2, "train_fn.item_embedding_dim", "a non-negative integer"),
        ("train_fn.item_embedding_dim = -1", 2, "train_fn.item_embedding_dim", "a non-negative integer"),
        ("train_fn.l2_norm_eps = '1e-6'", 2, "train_fn.l2_norm_eps", "a number"),
        ("train_fn.item_l2_norm = 1", 2, "train_fn.item_l2_norm", "True or False"),
    ];
    for (line, at, key, expected) in cases {
        let (found_line, found_key, found_expected, _) = wrong(&format!("{DOT}{line}\n"));
        assert_eq!((found_line, found_key.as_str()), (at, key), "{line}");
        assert!(found_expected.contains(expected), "{line}: {found_expected}");
    }
    // Brackets without end neither overflow the stack nor pass.
    let deep = wrong(&format!("{DOT}train_fn.loss_weights = {}", "[".repeat(100_000)));
    assert!(deep.2.contains("nested"));
    // Nor do macros: a long chain, and some that double from line to line.
    let chain: String = (0..20_000).map(|i| format!("A{i} = %A{}\n", i + 1)).collect();
    let chain = wrong(&format!("{chain}A20000 = 16\n{DOT}train_fn.item_embedding_dim = %A0\n"));
    assert_eq!((chain.0, chain.1.as_str()), (20_003, "train_fn.item_embedding_dim"));
    assert!(chain.2.contains("nested at most 64 deep"), "{}", chain.2);
    let doubled: String = (1..25).map(|i| format!("A{i} = [%A{0}, %A{0}]\n", i - 1)).collect();
    let doubled = wrong(&format!("A0 = [1, 1]\n{doubled}{DOT}train_fn.loss_weights = %A24\n"));
    assert_eq!((doubled.0, doubled.1.as_str()), (27, "train_fn.loss_weights"));
    assert!(doubled.2.contains("1048576 bytes with all macros written out"), "{}", doubled.2);
    let long = "x".repeat(1 << 16);
    let texts: String = (0..17).map(|i| format!("train_fn.note{i} = %LONG\n")).collect();
    assert!(wrong(&format!("LONG = '{long}'\n{DOT}{texts}")).2.contains("1048576 bytes"));
    let found = wrong(&format!("{DOT}train_fn.item_embedding_dim = '{long}'")).3;
    assert!(found.len() < 210 && found.ends_with("..."), "{found}");
    let large = from_text(&format!("{DOT}#{}", "x".repeat(1 << 20))).unwrap_err().to_string();
    assert!(large.ends_with("model.gin: expected at most 1048576 bytes, found more"), "{large}");
    let depth_of_32 = format!("{DOT}train_fn.loss_weights = {}1{}", "[".repeat(32), "]".repeat(32));
    from_text(&depth_of_32).unwrap();
    let message = from_text(&format!("{DOT}\n\ntrain_fn.item_embedding_dim = None")).unwrap_err().to_string();
    assert!(
        message.ends_with("model.gin:4: `train_fn.item_embedding_dim`: expected a non-negative integer, found None"),
        "{message}"
    );
}

#[test]
fn unsupported_and_impossible_values_are_refused() {
    let hstu = format!("{DOT}train_fn.main_module = 'HSTU'\n");
    let cases = [
        (DOT, "train_fn.main_module", "'Caser'", "'HSTU' or 'SASRec' or 'GRU4Rec' or 'BERT4Rec'"),
        (DOT, "train_fn.interaction_module_type", "'Cosine'", "'MoL' or 'DotProduct'"),
        (DOT, "train_fn.embedding_module_type", "'categorical'", "'local'"),
        (DOT, "train_fn.user_embedding_norm", "'batch_norm'", "'l2_norm' or 'layer_norm' or 'none'"),
        (DOT, "train_fn.item_embedding_dim", "0", "from 1"),
        (DOT, "train_fn.item_embedding_dim", "9999999999", "to 2147483647"),
        (DOT, "train_fn.max_sequence_length", "0", "from 1"),
        (DOT, "train_fn.l2_norm_eps", "0.0", "above 0"),
        (DOT, "train_fn.l2_norm_eps", "1e999", "finite"),
        (DOT, "sasrec_encoder.ffn_activation_fn", "'tanh'", "'relu' or 'gelu'"),
        (DOT, "sasrec_encoder.num_heads", "7", "a divisor of item_embedding_dim = 240"),
        (DOT, "sasrec_encoder.num_heads", "0", "from 1"),
        (&hstu, "hstu_encoder.linear_config", "'uvq'", "'uvqk'"),
        (&hstu, "hstu_encoder.normalization", "'softmax_rel_bias'", "'rel_bias'"),
        (&hstu, "hstu_encoder.linear_activation", "'relu'", "'silu' or 'none'"),
        (&hstu, "hstu_encoder.enable_relative_attention_bias", "False", "True"),
        (&hstu, "hstu_encoder.dv", "0", "from 1"),
    ];
    for (base, key, value, expected) in cases {
        let (line, found_key, found_expected, found) = wrong(&format!("{base}{key} = {value}\n"));
        assert_eq!((line, found_key.as_str()), (base.lines().count() + 1, key));
        assert!(found_expected.contains(expected), "{key}: {found_expected}");
        assert!(!found.is_empty(), "{key}");
    }
    let cases = [
        ("temperature", "0.0", "above 0"),
        ("temperature", "-0.05", "above 0"),
        ("temperature", "None", "a number"),
        ("eps", "0", "above 0"),
        ("uid_embedding_hash_sizes", "[10, -1]", "a list of non-negative integers"),
        ("uid_embedding_hash_sizes", "[0]", "from 1"),
        ("uid_embedding_hash_sizes", "50", "a list"),
        ("gating_combination_type", "'glu'", "'glu_silu' or 'glu_silu_ln' or 'none'"),
        ("query_nonlinearity", "'reglu'", "'geglu' or 'swiglu'"),
        ("query_use_identity_fn", "True", "False"),
        ("item_use_identity_fn", "True", "False"),
        ("gating_item_hidden_dim", "0", "from 1"),
        ("query_hidden_dim", "None", "an integer"),
    ];
    for (name, value, expected) in cases {
        let key = format!("create_mol_interaction_module.{name}");
        let text = mol_with(name, &format!("{key} = {value}"));
        let (line, found_key, found_expected, _) = wrong(&text);
        assert_eq!((line, found_key), (text.lines().count(), key), "{name} = {value}");
        assert!(found_expected.contains(expected), "{name} = {value}: {found_expected}");
    }
    let tables = format!("{MOL}create_mol_interaction_module.uid_embedding_hash_sizes = [1,2,3,4,5,6,7,8]\n");
    let (line, key, expected, found) = wrong(&tables);
    assert_eq!((line, key.as_str()), (3, "create_mol_interaction_module.query_dot_product_groups"));
    assert_eq!((expected.as_str(), found.as_str()), ("an integer from 9 to 2147483647", "8"));
    // glu_silu multiplies the query part by the item part; line 0, since the default is at fault.
    let one_part = format!("{MOL}create_mol_interaction_module.gating_query_fn = False\n");
    let (line, key, ..) = wrong(&one_part);
    assert_eq!((line, key.as_str()), (0, "create_mol_interaction_module.gating_combination_type"));
    from_text(&format!("{one_part}create_mol_interaction_module.gating_combination_type = 'none'\n")).unwrap();
}

#[test]
fn missing_parameters_are_named_at_line_zero() {
    assert_eq!(wrong("train_fn.num_epochs = 3\n").1, "train_fn.interaction_module_type");
    for name in [
        "query_dot_product_groups",
        "item_dot_product_groups",
        "dot_product_dimension",
        "temperature",
        "query_hidden_dim",
        "item_hidden_dim",
        "gating_query_hidden_dim",
        "gating_item_hidden_dim",
        "gating_qi_hidden_dim",
    ] {
        let (line, key, _, found) = wrong(&mol_with(name, ""));
        assert_eq!((line, key), (0, format!("create_mol_interaction_module.{name}")));
        assert!(found.contains("required"), "{found}");
    }
    let missing = ModelConfig::from_gin("no/such/file.gin");
    assert!(matches!(missing, Err(Error::Io { action: "read", .. })));
}

// ---- warnings

static LOGGED: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Collect;

impl log::Log for Collect {
    fn enabled(&self, _: &log::Metadata) -> bool {
        true
    }

    fn log(&self, record: &log::Record) {
        logged().push(format!("{} {}", record.level(), record.args()));
    }

    fn flush(&self) {}
}

fn logged() -> MutexGuard<'static, Vec<String>> {
    LOGGED.lock().unwrap()
}

fn warnings_of(path: &Path) -> Vec<String> {
    static START: Once = Once::new();
    START.call_once(|| {
        log::set_logger(&Collect).unwrap();
        log::set_max_level(log::LevelFilter::Debug);
    });
    ModelConfig::from_gin(path).unwrap();
    // Other tests log too; their files have other names.
    logged().iter().filter(|line| line.contains(&path.display().to_string())).cloned().collect()
}

#[test]
fn unknown_parameters_are_reported_and_training_parameters_are_not() {
    for case in ["tiny_hstu_mol", "tiny_sasrec_dot", "tiny_hstu_mol_none"] {
        assert_eq!(warnings_of(&gin_of(case)), [""; 0], "{case}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("unknown.gin");
    // Parameters of functions that are not in use are not unknown.
    let unused = "hstu_encoder.dv = 3\ncreate_mol_interaction_module.eps = 1e-6\n";
    let text = format!("{DOT}{unused}train_fn.item_embeding_dim = 3\nother_fn.x = @y\nimport os\n");
    fs::write(&path, text).unwrap();
    let warnings = warnings_of(&path);
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    for part in
        ["unknown.gin:4: `train_fn.item_embeding_dim`", "unknown.gin:5: `other_fn.x`", "unknown.gin:6: `import`"]
    {
        assert!(warnings.iter().any(|line| line.starts_with("WARN") && line.contains(part)), "{part}: {warnings:?}");
    }
}

// ---- JSON and validation

#[test]
fn json_has_a_version_and_no_surprises() {
    assert_eq!(CONFIG_KEY, "rails.config");
    let json = tiny().to_json();
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["format"], 1);
    assert_eq!(value["model"]["similarity"]["type"], "mol");
    assert_eq!(value["model"]["encoder"]["linear_activation"], "silu");
    let edited = |from: &str, to: &str| {
        assert!(json.contains(from), "{from}");
        match ModelConfig::from_json(&json.replacen(from, to, 1), "a.safetensors") {
            Err(Error::Config { path, key, expected, found, .. }) => {
                assert_eq!(path, Path::new("a.safetensors"));
                format!("{key}: {expected}: {found}")
            }
            other => panic!("{from} -> {to}: {other:?}"),
        }
    };
    assert!(edited("\"format\":1", "\"format\":2").contains("rails.config.format: version 1"));
    assert!(edited("\"format\":1,", "").contains("format"));
    assert!(edited("\"num_heads\":2", "\"num_heads\":0").contains("hstu_encoder.num_heads: an integer from 1"));
    assert!(edited("\"num_heads\":2", "\"num_heads\":-2").contains("rails.config"));
    assert!(edited("\"num_heads\":2", "\"num_heads\":2,\"extra\":1").contains("extra"));
    assert!(edited("\"concat_ua\":false,", "").contains("concat_ua"));
    assert!(edited("\"glu_silu\"", "\"softmax\"").contains("softmax"));
    assert!(edited("{", "").contains("JSON"));
}

/// The configuration in a fixture, and what is said of it with some text replaced.
fn said_of_fixture(case: &str, from: &str, to: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle").join(case);
    let checkpoint = Checkpoint::open(folder.join("model.safetensors")).unwrap();
    let json = find_config(&checkpoint, None).unwrap().to_json();
    assert_eq!(ModelConfig::from_json(&json, "a").unwrap(), find_config(&checkpoint, None).unwrap());
    assert!(json.contains(from), "{from} is not in {json}");
    ModelConfig::from_json(&json.replacen(from, to, 1), "a").unwrap_err().to_string()
}

#[test]
fn gru4rec_and_bert4rec_are_read_from_json_and_checked() {
    let said = said_of_fixture("tiny_gru4rec_bias", "\"hidden_dim\":16", "\"hidden_dim\":17");
    assert!(
        said.contains("gru4rec_encoder.hidden_dim") && said.contains("16, as there is no dense layer, found 17"),
        "{said}"
    );
    let said = said_of_fixture("tiny_gru4rec", "\"num_layers\":2", "\"num_layers\":0");
    assert!(said.contains("gru4rec_encoder.num_layers"), "{said}");
    let said = said_of_fixture("tiny_bert4rec", "\"num_heads\":2", "\"num_heads\":3");
    assert!(
        said.contains("bert4rec_encoder.num_heads") && said.contains("a divisor of item_embedding_dim = 16"),
        "{said}"
    );
    let said = said_of_fixture("tiny_bert4rec", "\"layer_norm_eps\":", "\"layer_norm_eps\":-");
    assert!(said.contains("bert4rec_encoder.layer_norm_eps"), "{said}");
    let said = said_of_fixture("tiny_bert4rec", "\"item_l2_norm\":false", "\"item_l2_norm\":true");
    assert!(said.contains("output.bias") && said.contains("not l2-normalised"), "{said}");
    let said = said_of_fixture("tiny_bert4rec", "\"positions\":\"from_first\"", "\"positions\":\"middle\"");
    assert!(said.contains("middle"), "{said}");
    let with_bias = ModelConfig { output: OutputConfig { separate: false, bias: true }, ..tiny() };
    let said = with_bias.validate().unwrap_err().to_string();
    assert!(said.contains("output: expected a dot product") && said.contains("found Mixture-of-Logits"), "{said}");
    assert_eq!((with_bias.query_embedding_dim(), tiny().query_embedding_dim()), (17, 16));
}

#[test]
fn configurations_made_in_code_are_validated() {
    tiny().validate().unwrap();
    let cases: [(&str, MolConfig); 4] = [
        ("temperature", MolConfig { temperature: f32::NAN, ..tiny_mol() }),
        ("query_dot_product_groups", MolConfig { query_dot_product_groups: 1, ..tiny_mol() }),
        ("gating_qi_hidden_dim", MolConfig { gating_qi_hidden_dim: Some(0), ..tiny_mol() }),
        (
            "gating_combination_type",
            MolConfig { gating_item_hidden_dim: None, gating_combination: GatingCombination::GluSiluLn, ..tiny_mol() },
        ),
    ];
    for (name, mol) in cases {
        match tiny_with(mol).validate() {
            Err(Error::Argument { parameter: Parameter::HyperParameter(found), .. }) => {
                assert!(found.ends_with(name), "{found}")
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

proptest::proptest! {
    #[test]
    fn json_keeps_every_bit_of_a_number(temperature in 1e-30_f32..1e30, l2_norm_eps in f32::MIN_POSITIVE..1.0) {
        let config = ModelConfig { l2_norm_eps, ..tiny_with(MolConfig { temperature, ..tiny_mol() }) };
        proptest::prop_assert_eq!(ModelConfig::from_json(&config.to_json(), "a").unwrap(), config);
    }

    #[test]
    fn no_text_makes_the_parser_panic(lines in proptest::collection::vec("[a-z.%@/ =\\[\\](){},:'\"#\\\\0-9\r\n_-]{0,40}", 0..8)) {
        let _ = from_text(&format!("{DOT}{}", lines.join("\n")));
    }
}

#[test]
fn negatives_are_refused_where_the_softmax_is_over_all_items() {
    let full = TrainConfig::default().with_loss(LossKind::FullSoftmax);
    let refused = full.overridden(r#"{"negatives": 5}"#).unwrap_err().to_string();
    assert!(refused.contains("no negatives") && refused.contains("negatives 5"), "{refused}");
    assert_eq!(full.overridden(r#"{"epochs": 2}"#).unwrap().epochs, 2);
    assert_eq!(TrainConfig::default().overridden(r#"{"negatives": 5}"#).unwrap().negatives, 5);
}
