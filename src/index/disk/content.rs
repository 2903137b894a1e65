//! What the manifest says of an index: how it is built, and which file holds what.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::attributes::Column;
use crate::index::build::Blueprint;
use crate::index::{IndexOptions, ListOptions};
use crate::store::{RESTORE, Store};
use crate::tables::{Dtype, Form};
use crate::{Error, Result};

/// Version of the content that this program writes, and the only one it reads.
const LAYOUT: u32 = 1;

/// One version of an index.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Content {
    layout: u32,
    /// Random: another index that was made in the same folder has another one.
    pub id: String,
    pub dtype: DtypeName,
    pub form: FormName,
    /// D: width of raw or token embeddings.
    pub dim: usize,
    /// Whether items have token embeddings.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub token_embeddings: bool,
    pub segment_items: usize,
    pub lists: Option<ListChoice>,
    /// File of the similarity, and of the encoder if there is one; none for an inner product alone.
    pub model: Option<String>,
    /// File of the distilled gate, if there is one.
    pub distilled: Option<String>,
    /// Whether ids of items are strings.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub string_ids: bool,
    /// Names and types of the attributes of items, if they have some.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<Column>,
    /// File of the principal directions of the components, if any were found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    pub segments: Vec<SegmentEntry>,
}

/// A segment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SegmentEntry {
    pub file: String,
    /// Deleted ones included.
    pub items: usize,
    /// File of the positions that are deleted, if any.
    pub deleted: Option<String>,
    /// File of the attributes, if the items of the index have some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum DtypeName {
    F32,
    F16,
    Int8,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum FormName {
    Components,
    Raw,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListChoice {
    pub n_lists: usize,
    pub groups: bool,
    pub all: bool,
}

impl DtypeName {
    pub fn name(self) -> &'static str {
        match self {
            DtypeName::F32 => "f32",
            DtypeName::F16 => "f16",
            DtypeName::Int8 => "int8",
        }
    }
}

impl FormName {
    pub fn name(self) -> &'static str {
        match self {
            FormName::Components => "components",
            FormName::Raw => "raw",
        }
    }
}

impl Content {
    /// Of an index without segments.
    pub fn new(Blueprint { options, form, dim, range, has_string_ids, columns, .. }: &Blueprint) -> Content {
        let lists = options.lists.map(|ListOptions { n_lists, groups, all }| ListChoice { n_lists, groups, all });
        Content {
            layout: LAYOUT,
            // The keys of hash maps are seeded by the system.
            id: format!("{:016x}", RandomState::new().hash_one(std::process::id())),
            dtype: match options.dtype {
                Dtype::F32 => DtypeName::F32,
                Dtype::F16 => DtypeName::F16,
                Dtype::I8 => DtypeName::Int8,
            },
            form: match form {
                Form::Components => FormName::Components,
                Form::Raw => FormName::Raw,
            },
            dim: *dim,
            token_embeddings: range.is_of_tokens(),
            segment_items: options.segment_items,
            lists,
            model: None,
            distilled: None,
            string_ids: *has_string_ids,
            attributes: columns.to_vec(),
            principal: None,
            segments: Vec::new(),
        }
    }

    /// Of the version that `store` has open.
    ///
    /// # Errors
    /// [`Error::Index`] if the building of the index was interrupted, or the content is not one that this program writes.
    pub fn read(store: &Store) -> Result<Content> {
        #[derive(Deserialize)]
        struct Head {
            layout: u32,
        }
        if store.content().is_null() {
            let what = "the index has no items yet: it is being built, or building it was interrupted";
            return Err(Error::index(store.folder(), what, "wait for the program that builds it, or build it again"));
        }
        let wrong = |error: serde_json::Error| damaged(store.folder(), format!("the content is wrong: {error}"));
        let head = Head::deserialize(store.content()).map_err(wrong)?;
        if head.layout != LAYOUT {
            let what = format!("content version {}, this program reads version {LAYOUT}", head.layout);
            let fix =
                "use a version of rails-wgpu that reads it (upgrade if this one is older), or build the index again";
            return Err(Error::index(store.folder(), what, fix));
        }
        let content = Content::deserialize(store.content()).map_err(wrong)?;
        Column::check_all(&content.attributes)
            .map_err(|error| damaged(store.folder(), format!("the content is wrong: {error}")))?;
        let have_attributes = |segment: &SegmentEntry| segment.attributes.is_some() != content.attributes.is_empty();
        if !content.segments.iter().all(have_attributes) {
            return Err(damaged(store.folder(), "the content is wrong: attributes of some segments only".to_string()));
        }
        if content.dim == 0 || content.segments.iter().any(|segment| segment.items == 0) {
            return Err(damaged(store.folder(), "the content is wrong: a width or a segment of 0".to_string()));
        }
        Ok(content)
    }

    /// As JSON, for the manifest.
    pub fn to_value(&self, folder: &Path) -> Result<Value> {
        serde_json::to_value(self).map_err(|error| damaged(folder, format!("the content cannot be written: {error}")))
    }

    pub fn dtype(&self) -> Dtype {
        match self.dtype {
            DtypeName::F32 => Dtype::F32,
            DtypeName::F16 => Dtype::F16,
            DtypeName::Int8 => Dtype::I8,
        }
    }

    pub fn form(&self) -> Form {
        match self.form {
            FormName::Components => Form::Components,
            FormName::Raw => Form::Raw,
        }
    }

    /// What the index was built with; what is a matter of the program that opens it has its default.
    pub fn options(&self) -> IndexOptions {
        IndexOptions {
            dtype: self.dtype(),
            form: Some(self.form()),
            segment_items: self.segment_items,
            lists: self.lists.map(|ListChoice { n_lists, groups, all }| ListOptions { n_lists, groups, all }),
            ..IndexOptions::default()
        }
    }

    /// Whether both are versions of one index.
    pub fn is_version_of(&self, other: &Content) -> bool {
        let lasting = |content: &Content| Content { distilled: None, ..content.without_segments() };
        lasting(self) == lasting(other)
    }

    /// This version without its segments, for the next one to begin with.
    pub fn without_segments(&self) -> Content {
        Content { segments: Vec::new(), ..self.clone() }
    }

    /// All files that this version needs.
    pub fn files(&self) -> impl Iterator<Item = &String> {
        let of_segments = self
            .segments
            .iter()
            .flat_map(|segment| [Some(&segment.file), segment.deleted.as_ref(), segment.attributes.as_ref()]);
        of_segments.chain([self.model.as_ref(), self.distilled.as_ref(), self.principal.as_ref()]).flatten()
    }
}

/// `path` is not what was written.
pub(super) fn damaged(path: &Path, what: impl Into<String>) -> Error {
    Error::index(path, what, RESTORE)
}
