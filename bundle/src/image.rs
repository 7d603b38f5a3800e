//! Container images without Docker: one tar that is an OCI layout and a `docker load` archive at once.
//!
//! SageMaker refuses OCI media types and indexes of manifests, so the manifest inside is Docker's image manifest, version 2,
//! schema 2. The same contents give the same bytes.

use crate::archive::{Entry, gzip, tar};
use crate::program::Architecture;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use tacit_ir::diag::{Diagnostic, Result};

/// Media type of an image manifest.
pub const MANIFEST_TYPE: &str = "application/vnd.docker.distribution.manifest.v2+json";
const CONFIG_TYPE: &str = "application/vnd.docker.container.image.v1+json";
const LAYER_TYPE: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// Variables of an image's programs. glibc's allocator learns from the first large block that is freed to keep such blocks, for
/// each thread its own: after some evaluation keys these are hundreds of megabytes that nothing uses. Fixed thresholds give blocks
/// over 4 MiB back at once (mallopt(3)).
pub const ENVIRONMENT: [(&str, &str); 3] =
    [("PATH", "/usr/local/bin"), ("MALLOC_MMAP_THRESHOLD_", "4194304"), ("MALLOC_TRIM_THRESHOLD_", "8388608")];

/// What an image is made of.
#[derive(Clone, Debug)]
pub struct Image {
    /// The name before the tag.
    pub name: String,
    /// What its program runs on.
    pub architecture: Architecture,
    /// The layers, lowest first.
    pub layers: Vec<Vec<Entry>>,
    /// The program and its fixed arguments.
    pub entrypoint: Vec<String>,
    /// Arguments where the user gives none.
    pub command: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Ports it listens on.
    pub ports: Vec<u16>,
}

/// An image as a file.
#[derive(Clone, Debug)]
pub struct Built {
    /// The tar archive.
    pub tar: Vec<u8>,
    /// `name:tag`; the tag is the beginning of the configuration's digest, so that other contents have another tag.
    pub reference: String,
    /// The tag alone.
    pub tag: String,
    /// Bytes of the compressed layers.
    pub compressed: u64,
    /// Bytes of the layers' files.
    pub size: u64,
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The SHA-256 digest of bytes, in hexadecimal.
pub fn digest(bytes: &[u8]) -> String {
    sha256(bytes)
}

fn text(value: &Value) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|why| Diagnostic::internal(format!("JSON of an image: {why}")))
}

/// Blobs by content, and descriptors of them.
#[derive(Default)]
struct Blobs(Vec<Entry>);

impl Blobs {
    fn add(&mut self, media_type: &str, bytes: Vec<u8>) -> Value {
        let digest = sha256(&bytes);
        let descriptor = json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len() });
        let entry = Entry::file(format!("blobs/sha256/{digest}"), bytes);
        if !self.0.contains(&entry) {
            self.0.push(entry);
        }
        descriptor
    }
}

/// Where the archive has the blob of a descriptor.
fn place(descriptor: &Value) -> String {
    format!("blobs/{}", descriptor["digest"].as_str().unwrap_or_default().replace(':', "/"))
}

/// Writes an image.
///
/// # Errors
/// [`Code::Internal`](tacit_ir::diag::Code::Internal) for a path that tar cannot hold.
pub fn build(image: &Image) -> Result<Built> {
    let mut blobs = Blobs::default();
    let (mut layers, mut diff_ids, mut history) = (Vec::new(), Vec::new(), Vec::new());
    let (mut compressed, mut size) = (0, 0);
    for entries in &image.layers {
        let layer = tar(entries)?;
        diff_ids.push(format!("sha256:{}", sha256(&layer)));
        let bytes = gzip(&layer)?;
        compressed += bytes.len() as u64;
        size += entries.iter().filter_map(|entry| entry.content.as_ref()).map(|bytes| bytes.len() as u64).sum::<u64>();
        layers.push(blobs.add(LAYER_TYPE, bytes));
        history.push(json!({ "created": EPOCH, "created_by": "tacit bundle" }));
    }
    let ports: BTreeMap<String, Value> = image.ports.iter().map(|port| (format!("{port}/tcp"), json!({}))).collect();
    let config = json!({
        "architecture": image.architecture.as_str(),
        "os": "linux",
        "created": EPOCH,
        "config": {
            "Entrypoint": image.entrypoint,
            "Cmd": image.command,
            "Env": ENVIRONMENT.map(|(name, value)| format!("{name}={value}")),
            "ExposedPorts": ports,
            "Labels": image.labels,
            "WorkingDir": "/",
        },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "history": history,
    });
    let config = blobs.add(CONFIG_TYPE, text(&config)?);
    let tag = config["digest"].as_str().unwrap_or_default().trim_start_matches("sha256:")[..12].to_owned();
    let reference = format!("{}:{tag}", image.name);
    let loaded = json!([{
        "Config": place(&config),
        "RepoTags": [reference],
        "Layers": layers.iter().map(place).collect::<Vec<_>>(),
    }]);
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": layers });
    let mut manifest = blobs.add(MANIFEST_TYPE, text(&manifest)?);
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    let mut entries = blobs.0;
    entries.push(Entry::file("oci-layout", text(&json!({ "imageLayoutVersion": "1.0.0" }))?));
    entries.push(Entry::file("index.json", text(&index)?));
    entries.push(Entry::file("manifest.json", text(&loaded)?));
    Ok(Built { tar: tar(&entries)?, reference, tag, compressed, size })
}

const EPOCH: &str = "1970-01-01T00:00:00Z";

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn image(model: &[u8]) -> Image {
        Image {
            name: "tacit-server".to_owned(),
            architecture: Architecture::Amd64,
            layers: vec![
                vec![Entry::program("usr/local/bin/tacit-server", *b"program"), Entry::folder("tmp", 0o1777)],
                vec![Entry::file("opt/ml/model/model.tacit", model)],
            ],
            entrypoint: vec!["/usr/local/bin/tacit-server".to_owned()],
            command: vec!["serve".to_owned()],
            labels: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
            ports: vec![8080],
        }
    }

    /// The files of an archive, unpacked where it is compressed.
    fn files(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(bytes);
        let mut files = BTreeMap::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            files.insert(entry.path().unwrap().display().to_string(), content);
        }
        files
    }

    #[test]
    fn every_digest_is_that_of_its_blob_and_every_type_is_dockers() {
        let built = build(&image(b"model")).unwrap();
        let files = files(&built.tar);
        for (path, content) in files.iter().filter(|(path, _)| path.starts_with("blobs/sha256/") && path.len() > 13) {
            assert_eq!(path.trim_start_matches("blobs/sha256/"), sha256(content));
        }
        let read = |path: &str| -> Value { serde_json::from_slice(&files[path]).unwrap() };
        let index = read("index.json");
        let descriptor = &index["manifests"][0];
        assert_eq!(descriptor["mediaType"], MANIFEST_TYPE);
        let manifest = read(&place(descriptor));
        assert_eq!(manifest["mediaType"], MANIFEST_TYPE);
        assert_eq!(manifest["config"]["mediaType"], CONFIG_TYPE);
        let config = read(&place(&manifest["config"]));
        let layers = manifest["layers"].as_array().unwrap();
        assert_eq!(layers.len(), 2);
        for (layer, diff_id) in layers.iter().zip(config["rootfs"]["diff_ids"].as_array().unwrap()) {
            assert_eq!(layer["mediaType"], LAYER_TYPE);
            let bytes = &files[&place(layer)];
            assert_eq!(layer["size"], bytes.len());
            let mut layer = Vec::new();
            flate2::read::GzDecoder::new(bytes.as_slice()).read_to_end(&mut layer).unwrap();
            assert_eq!(format!("sha256:{}", sha256(&layer)), diff_id.as_str().unwrap());
        }
        assert!(built.reference.ends_with(&built.tag) && descriptor["digest"] != manifest["config"]["digest"]);
        let loaded = read("manifest.json");
        assert_eq!(loaded[0]["Config"], place(&manifest["config"]));
        assert_eq!(loaded[0]["RepoTags"][0], built.reference);
        assert_eq!(config["config"]["Entrypoint"][0], "/usr/local/bin/tacit-server");
        assert_eq!(config["config"]["Env"][0], "PATH=/usr/local/bin");
    }

    #[test]
    fn the_same_contents_give_the_same_bytes_and_others_another_tag() {
        let built = build(&image(b"model")).unwrap();
        assert_eq!(built.tar, build(&image(b"model")).unwrap().tar);
        let mut swapped = image(b"model");
        swapped.layers[0].reverse();
        assert_eq!(built.tar, build(&swapped).unwrap().tar);
        assert_ne!(built.tag, build(&image(b"another")).unwrap().tag);
    }
}
