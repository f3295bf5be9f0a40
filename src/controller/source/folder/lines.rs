//! Where in a YAML text each field stands, so that a problem can name its line.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser};

/// The lines of every field of every document of one text.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// By document (counted from 0) and path, such as `spec.routes[0].timeout`; the document itself has the empty path.
    by_path: HashMap<(usize, String), usize>,
}

/// What is open while the text is read.
enum Open {
    /// A mapping at a path; the name of the field whose value comes next, if one was read.
    Mapping(String, Option<String>),
    /// A list at a path, and how many items came before.
    List(String, usize),
}

impl Lines {
    /// Reads `text` as far as it is YAML.
    pub(super) fn of(text: &str) -> Self {
        let mut reader = Reader::default();
        for event in Parser::new_from_str(text) {
            let Ok((event, span)) = event else { break };
            reader.take(&event, span.start.line());
        }
        Self { by_path: reader.lines }
    }

    /// The line of `path` in a document; where it is not there, of what it would be in.
    pub(super) fn find(&self, document: usize, path: &str) -> usize {
        let mut path = path;
        loop {
            if let Some(line) = self.by_path.get(&(document, path.to_owned())) {
                return *line;
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = &path[..end],
                None if path.is_empty() => return 1,
                None => path = "",
            }
        }
    }
}

#[derive(Default)]
struct Reader {
    lines: HashMap<(usize, String), usize>,
    documents: usize,
    open: Vec<Open>,
}

impl Reader {
    fn take(&mut self, event: &Event<'_>, line: usize) {
        match event {
            Event::DocumentStart(_) => self.documents += 1,
            Event::MappingStart(..) => {
                let path = self.value(line);
                self.open.push(Open::Mapping(path, None));
            }
            Event::SequenceStart(..) => {
                let path = self.value(line);
                self.open.push(Open::List(path, 0));
            }
            Event::MappingEnd | Event::SequenceEnd => drop(self.open.pop()),
            Event::Scalar(text, ..) => self.scalar(text, line),
            Event::Alias(_) => drop(self.value(line)),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            #[expect(unreachable_patterns, reason = "the parser may learn events that have no place in a manifest")]
            _ => {}
        }
    }

    fn scalar(&mut self, text: &str, line: usize) {
        if let Some(Open::Mapping(path, field @ None)) = self.open.last_mut() {
            let name = if path.is_empty() { text.to_owned() } else { format!("{path}.{text}") };
            self.lines.entry((self.documents.saturating_sub(1), name)).or_insert(line);
            *field = Some(text.to_owned());
        } else {
            self.value(line);
        }
    }

    /// A value begins: its path.
    fn value(&mut self, line: usize) -> String {
        let path = match self.open.last_mut() {
            None => String::new(),
            Some(Open::List(path, index)) => {
                let item = format!("{path}[{index}]");
                *index += 1;
                item
            }
            // A mapping as a key has no name; its value is found by the mapping's own line.
            Some(Open::Mapping(path, field)) => match field.take() {
                Some(name) if path.is_empty() => name,
                Some(name) => format!("{path}.{name}"),
                None => path.clone(),
            },
        };
        self.lines.entry((self.documents.saturating_sub(1), path.clone())).or_insert(line);
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# head\nkind: A\nspec:\n  routes:\n  - name: x\n    timeout: 5\n  - {name: y}\n---\nkind: B\nspec: &s {a: 1}\nother: *s\nlast: 1\n";

    #[test]
    fn fields_are_found_by_path_in_their_document() {
        let lines = Lines::of(TEXT);
        let cases = [
            (0, "kind", 2),
            (0, "spec.routes", 4),
            (0, "spec.routes[0]", 5),
            (0, "spec.routes[0].timeout", 6),
            (0, "spec.routes[1].name", 7),
            (1, "", 9),
            (1, "kind", 9),
            (1, "spec.a", 10),
            (1, "last", 12),
        ];
        for (document, path, line) in cases {
            assert_eq!(lines.find(document, path), line, "{document} {path}");
        }
    }

    #[test]
    fn a_field_that_is_not_there_is_where_it_would_be() {
        let lines = Lines::of(TEXT);
        assert_eq!(lines.find(0, "spec.routes[0].matches[2].path"), 5);
        assert_eq!(lines.find(1, "metadata.name"), 9);
        assert_eq!(Lines::of("").find(0, "spec"), 1);
    }
}
