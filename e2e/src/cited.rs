//! Every test that `docs/security.md` names is there.

use std::{fs, path::Path};

/// A source file: the modules that lead to it, and what is in it.
struct Source {
    modules: Vec<String>,
    text: String,
}

impl Source {
    /// Whether the name is that of a module with tests here, or of one of the functions; `…` stands for how it goes on.
    fn has(&self, name: &[&str]) -> bool {
        let Some((function, modules)) = name.split_last() else { return false };
        let function =
            function.strip_suffix('…').map_or(format!("fn {function}("), |begin| format!("fn {begin}"));
        self.is(name) && self.text.contains("#[") || self.is(modules) && self.text.contains(&function)
    }

    /// Whether the module that these names end with is in this file.
    fn is(&self, modules: &[&str]) -> bool {
        let ends = |modules: &[&str]| {
            let own = self.modules.iter().rev().map(String::as_str);
            !modules.is_empty() && modules.iter().rev().copied().eq(own.take(modules.len()))
        };
        let inner = || modules.split_last().filter(|(last, _)| **last == "tests").map(|(_, outer)| outer);
        ends(modules) || self.text.contains("\nmod tests {") && inner().is_some_and(ends)
    }
}

fn read(folder: &Path, modules: &[String], sources: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let modules = [modules, &[path.file_stem().unwrap().to_string_lossy().into_owned()]].concat();
        if path.is_dir() {
            read(&path, &modules, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push(Source { modules, text: fs::read_to_string(path).unwrap() });
        }
    }
}

#[test]
fn the_tests_that_the_page_on_security_names_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut sources = Vec::new();
    for part in ["e2e/tests", "oci/src", "channel", "registry/src", "registry/tests", "operator/src"] {
        read(&root.join(part), &[], &mut sources);
    }
    let page = fs::read_to_string(root.join("docs/security.md")).unwrap();
    let cited: Vec<&str> = page.split('`').skip(1).step_by(2).filter(|name| name.contains("::")).collect();
    assert!(cited.len() > 30, "the page names {} tests", cited.len());
    let is_missing = |name: &&&str| {
        let name: Vec<&str> = name.split("::").collect();
        !sources.iter().any(|source| source.has(&name))
    };
    assert_eq!(cited.iter().filter(is_missing).collect::<Vec<_>>(), Vec::<&&str>::new());
}
