//! The catalog: every stream and view of a directory of `.sql` files.
//!
//! Definitions do not depend on the order of files or statements: all streams are read first, then the views over them. Every
//! error of every file is collected, so a user sees all of them at once.

mod create_table;
mod source;
#[cfg(test)]
mod tests;

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
    sync::Arc,
};

use datafusion::sql::sqlparser::{
    ast::{ObjectName, ObjectNamePart, Spanned, Statement},
    tokenizer::Location,
};

use self::source::Source;
use crate::{
    definition::{DEFINED_NAME_BYTES_MAX, DefinitionError, Problem, QUARANTINE_SUFFIX},
    limits::DEFINITION_FILE_BYTES_MAX,
    name::Name,
    stream::Stream,
    view::View,
};

/// All streams and views, by name. Immutable: definitions change with a restart.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    streams: BTreeMap<Name, Arc<Stream>>,
    views: BTreeMap<Name, Arc<View>>,
}

impl Catalog {
    /// Reads every `*.sql` file of a directory, in order of their names.
    ///
    /// # Errors
    /// All definitions that were refused, in order of file and place; or the directory or files that could not be read.
    pub fn load(directory: &Path) -> Result<Self, Vec<DefinitionError>> {
        let names = sql_files(directory).map_err(|error| vec![unreadable(&directory.display().to_string(), &error)])?;
        let mut errors = Vec::new();
        let mut files = Vec::new();
        for name in names {
            match read_file(&directory.join(&name)) {
                Ok(text) => files.push((name, text)),
                Err(error) => errors.push(unreadable(&name, &error)),
            }
        }
        let parsed = Self::parse(files.iter().map(|(name, text)| (name.as_str(), text.as_str())));
        match parsed {
            Ok(catalog) if errors.is_empty() => Ok(catalog),
            Ok(_) => Err(errors),
            Err(refused) => {
                errors.extend(refused);
                Err(errors)
            }
        }
    }

    /// Reads definitions from texts: `(file name, SQL)`.
    ///
    /// # Errors
    /// All definitions that were refused, in order of file and place.
    pub fn parse<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, Vec<DefinitionError>> {
        let mut reading = Reading::default();
        let mut sources = Vec::new();
        for (file, text) in files {
            if u64::try_from(text.len()).is_ok_and(|bytes| bytes <= DEFINITION_FILE_BYTES_MAX) {
                sources.extend(Source::read(file, text, &mut reading.errors));
            } else {
                reading.errors.push(unreadable(file, &too_large()));
            }
        }
        // Views are compiled over streams, so all streams come first.
        for source in &sources {
            reading.stream(source);
        }
        for source in &sources {
            reading.view(source);
        }
        reading.errors.sort();
        if reading.errors.is_empty() { Ok(reading.catalog) } else { Err(reading.errors) }
    }

    /// The streams, in order of their names.
    pub fn streams(&self) -> impl Iterator<Item = &Arc<Stream>> {
        self.streams.values()
    }

    /// The views, in order of their names.
    pub fn views(&self) -> impl Iterator<Item = &Arc<View>> {
        self.views.values()
    }

    /// The stream of that name.
    #[must_use]
    pub fn stream(&self, name: &str) -> Option<&Arc<Stream>> {
        self.streams.get(&Name::new(name).ok()?)
    }

    /// The view of that name.
    #[must_use]
    pub fn view(&self, name: &str) -> Option<&Arc<View>> {
        self.views.get(&Name::new(name).ok()?)
    }

    /// The views of one stream.
    pub fn views_of<'a>(&'a self, stream: &'a Name) -> impl Iterator<Item = &'a Arc<View>> {
        self.views.values().filter(move |view| &view.stream().name == stream)
    }
}

/// A catalog that is being read.
#[derive(Default)]
struct Reading {
    catalog: Catalog,
    /// Where each name was defined first, whether its definition was accepted or not.
    places: BTreeMap<Name, String>,
    /// Streams whose definition was refused: views over them are not blamed for it.
    refused: BTreeSet<String>,
    errors: Vec<DefinitionError>,
}

impl Reading {
    /// Takes the stream that a statement defines, or the error of a statement that defines neither stream nor view.
    fn stream(&mut self, source: &Source<'_>) {
        match &source.statement {
            Statement::CreateTable(table) => {
                let compiled = self
                    .define(&table.name, source)
                    .map_err(|problem| vec![problem])
                    .and_then(|name| create_table::compile(table, name, source));
                match compiled {
                    Ok(stream) => {
                        self.catalog.streams.insert(stream.name.clone(), Arc::new(stream));
                    }
                    Err(problems) => {
                        self.refused.extend(
                            table.name.0.last().and_then(ObjectNamePart::as_ident).map(|identifier| identifier.value.clone()),
                        );
                        self.errors.extend(problems.into_iter().map(|problem| problem.in_file(source.file, source.start)));
                    }
                }
            }
            Statement::CreateView(view) if view.materialized => {}
            Statement::CreateView(_) => {
                let problem = Problem::at(source.start, "a view must be materialized").hint("write CREATE MATERIALIZED VIEW");
                self.errors.push(problem.in_file(source.file, source.start));
            }
            _ => {
                let problem = Problem::at(source.start, "this statement defines neither a stream nor a view")
                    .hint("write CREATE TABLE … WITH (…) or CREATE MATERIALIZED VIEW … AS SELECT …");
                self.errors.push(problem.in_file(source.file, source.start));
            }
        }
    }

    /// Takes the view that a statement defines.
    fn view(&mut self, source: &Source<'_>) {
        let Statement::CreateView(view) = &source.statement else { return };
        if !view.materialized {
            return;
        }
        let asked_for_refused = Cell::new(false);
        let lookup = |name: &str| {
            let found = self.catalog.stream(name).cloned();
            asked_for_refused.set(asked_for_refused.get() || found.is_none() && self.refused.contains(name));
            found
        };
        let compiled = View::compile(&source.statement, source.sql, &lookup);
        let defined = self.define(&view.name, source);
        match (defined, compiled) {
            (Ok(name), Ok(view)) => {
                self.catalog.views.insert(name, Arc::new(view));
            }
            (Err(problem), _) => self.errors.push(problem.in_file(source.file, source.start)),
            (Ok(_), Err(problem)) => {
                if !asked_for_refused.get() {
                    self.errors.push(problem.in_file(source.file, source.start));
                }
            }
        }
    }

    /// Checks the name of a definition, and that it is the first one of that name.
    fn define(&mut self, name: &ObjectName, source: &Source<'_>) -> Result<Name, Problem> {
        let location = name.span().start;
        let name = definition_name(name)?;
        if let Some(first) = self.places.get(&name) {
            return Err(Problem::at(location, format!("'{name}' is already defined at {first}"))
                .hint("streams and views share their names: choose another one"));
        }
        self.places.insert(name.clone(), place(source.file, location));
        Ok(name)
    }
}

/// The name of a stream or a view.
fn definition_name(name: &ObjectName) -> Result<Name, Problem> {
    let location = name.span().start;
    let [ObjectNamePart::Identifier(identifier)] = name.0.as_slice() else {
        return Err(Problem::at(location, format!("'{name}' is not a single name")).hint("leave out database and schema"));
    };
    let name = Name::new(identifier.value.clone()).map_err(|invalid| Problem::at(location, invalid.to_string()))?;
    if name.as_str().len() > DEFINED_NAME_BYTES_MAX {
        return Err(Problem::at(location, format!("'{name}' is longer than {DEFINED_NAME_BYTES_MAX} bytes")));
    }
    if name.as_str().ends_with(QUARANTINE_SUFFIX) {
        return Err(Problem::at(location, format!("'{name}' ends in '{QUARANTINE_SUFFIX}', which is kept for quarantines")));
    }
    Ok(name)
}

fn place(file: &str, location: Location) -> String {
    format!("{file}:{}:{}", location.line, location.column)
}

/// The names of a directory's `*.sql` files, in order.
fn sql_files(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "sql") {
            names.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

/// Reads a file, if it is not larger than a definition may be.
fn read_file(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.len() > DEFINITION_FILE_BYTES_MAX {
        return Err(too_large());
    }
    fs::read_to_string(path)
}

fn too_large() -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {DEFINITION_FILE_BYTES_MAX} bytes"))
}

fn unreadable(file: &str, error: &io::Error) -> DefinitionError {
    DefinitionError { file: file.to_owned(), line: 0, column: 0, message: format!("cannot be read: {error}"), hint: None }
}
