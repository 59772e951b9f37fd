//! `proto` lines to descriptors: sources and descriptor sets, through the [`Loader`].
//!
//! An import is looked for in the folder of the file that the `proto` line names, then in each folder above
//! it, up to the `.adn` file's own: the same roots that `protoc -I` is usually given. Google's well-known
//! files are built in.

use std::collections::BTreeMap;

use miette::Diagnostic as _;
use prost_reflect::DescriptorPool;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

use crate::Loader;

/// Proto files one application may use, imports included.
const PROTO_FILES_MAX: usize = 512;

/// What is wrong with a `proto` line.
#[derive(Debug)]
pub(crate) struct ProtoError {
    /// What, with the proto's own file and line.
    pub(crate) message: String,
    /// What was tried.
    pub(crate) label: Option<String>,
}

/// The protos of one application while they are read.
#[derive(Debug, Default)]
pub(crate) struct Protos {
    /// Sources by the name that imports know them by.
    files: BTreeMap<String, File>,
    /// Names by what the loader calls the file.
    names: BTreeMap<String, String>,
    roots: Vec<String>,
    pool: DescriptorPool,
}

/// Sources that have been read already.
struct Known(BTreeMap<String, File>);

impl FileResolver for Known {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        self.0.get(name).cloned().ok_or_else(|| protox::Error::file_not_found(name))
    }
}

impl Protos {
    /// Reads what `proto "path"` of the file `from` names.
    pub(crate) fn add(&mut self, loader: &dyn Loader, from: &str, path: &str) -> Result<(), ProtoError> {
        let (name, bytes) = loader
            .read_bytes(from, path)
            .map_err(|why| ProtoError { message: format!("cannot read \"{path}\""), label: Some(why) })?;
        if !path.ends_with(".proto")
            && let Ok(pool) = DescriptorPool::decode(bytes.as_slice())
            && pool.files().len() > 0
        {
            return self.join(&pool, &name);
        }
        let text = String::from_utf8(bytes).map_err(|_| ProtoError {
            message: format!("\"{path}\" is neither a proto nor a descriptor set"),
            label: Some("expected a .proto file, or what `protoc -o` writes".to_owned()),
        })?;
        let root = match self.names.get(&name) {
            Some(known) => known.clone(),
            None => {
                let own = path.rsplit('/').next().unwrap_or(path).to_owned();
                // Two files of one name in two folders are told apart by their paths.
                let own = if self.files.contains_key(&own) { path.to_owned() } else { own };
                self.source(&own, &name, &text)?;
                own
            }
        };
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        self.imports(loader, from, folder, &root)?;
        self.roots.push(root);
        // Compiled with all before it, so that what is wrong is told at the line that brings it.
        self.compile(&name).map(|_| ())
    }

    /// Every descriptor.
    pub(crate) fn finish(mut self) -> Result<DescriptorPool, ProtoError> {
        let compiled = self.compile("proto")?;
        self.join(&compiled, "proto")?;
        Ok(self.pool)
    }

    fn source(&mut self, own: &str, name: &str, text: &str) -> Result<(), ProtoError> {
        let file = File::from_source(own, text).map_err(|e| explain(&e, name))?;
        self.names.insert(name.to_owned(), own.to_owned());
        self.files.insert(own.to_owned(), file);
        Ok(())
    }

    /// Reads all that `root` imports, and what that imports.
    fn imports(
        &mut self,
        loader: &dyn Loader,
        from: &str,
        folder: &str,
        root: &str,
    ) -> Result<(), ProtoError> {
        let google = GoogleFileResolver::new();
        let mut open = vec![root.to_owned()];
        while let Some(importer) = open.pop() {
            let wanted = self.files.get(&importer).map(|f| f.file_descriptor_proto().dependency.clone());
            for import in wanted.unwrap_or_default() {
                if self.files.contains_key(&import) || google.open_file(&import).is_ok() {
                    continue;
                }
                if self.files.len() >= PROTO_FILES_MAX {
                    return Err(ProtoError {
                        message: format!("more than {PROTO_FILES_MAX} proto files"),
                        label: None,
                    });
                }
                let tried: Vec<String> = roots(folder).map(|root| format!("{root}{import}")).collect();
                let found = tried.iter().find_map(|path| loader.read_bytes(from, path).ok());
                let Some((name, bytes)) = found else {
                    return Err(ProtoError {
                        message: format!("{importer}: the import \"{import}\" is not found"),
                        label: Some(format!("tried {}", tried.join(", "))),
                    });
                };
                let text = String::from_utf8_lossy(&bytes).into_owned();
                self.source(&import, &name, &text)?;
                open.push(import);
            }
        }
        Ok(())
    }

    fn compile(&self, name: &str) -> Result<DescriptorPool, ProtoError> {
        let mut resolver = ChainFileResolver::new();
        resolver.add(Known(self.files.clone()));
        resolver.add(GoogleFileResolver::new());
        let mut compiler = protox::Compiler::with_file_resolver(resolver);
        compiler.include_imports(true);
        for root in &self.roots {
            compiler.open_file(root).map_err(|e| explain(&e, name))?;
        }
        Ok(compiler.descriptor_pool())
    }

    fn join(&mut self, other: &DescriptorPool, name: &str) -> Result<(), ProtoError> {
        let known = |name: &str| self.pool.get_file_by_name(name).is_some();
        let new: Vec<_> = other.file_descriptor_protos().filter(|f| !known(f.name())).cloned().collect();
        self.pool
            .add_file_descriptor_protos(new)
            .map_err(|e| ProtoError { message: format!("{name}: {e}"), label: None })
    }
}

/// The folder itself and those above it, each with its slash; the last is the `.adn` file's own.
fn roots(folder: &str) -> impl Iterator<Item = String> + '_ {
    let mut next = Some(folder);
    let is_absolute = folder.starts_with('/');
    std::iter::from_fn(move || {
        let here = next?;
        next = match here.rsplit_once('/') {
            Some((above, _)) => Some(above),
            None if here.is_empty() => None,
            None => Some(""),
        };
        Some(if here.is_empty() && !is_absolute { String::new() } else { format!("{here}/") })
    })
}

/// What protox says, with its file and line.
fn explain(error: &protox::Error, name: &str) -> ProtoError {
    let file = error.file().unwrap_or(name).to_owned();
    let place = error.labels().and_then(|mut labels| labels.next()).and_then(|label| {
        error.source_code()?.read_span(label.inner(), 0, 0).ok().map(|c| (c.line() + 1, c.column() + 1))
    });
    let message = match place {
        Some((line, column)) => format!("{file}:{line}:{column}: {error}"),
        None => format!("{file}: {error}"),
    };
    ProtoError { message, label: error.help().map(|h| h.to_string()) }
}
