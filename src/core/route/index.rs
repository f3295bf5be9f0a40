//! Which matches of a table may hold for a path, so that a request is judged by few of many rules.
//!
//! Exact paths are found by their text; prefixes, where there are more than a few, by walking the path's segments down a tree. What has a
//! pattern, or no condition on the path, may hold for any. An index only rules out what its own condition on the path would refuse: it
//! never decides that a match holds.
//!
//! Everything is sorted and searched by halves: no hashing, so no random keys, and nobody can send paths that collide.
//!
//! Reading order: [`Index::new`], [`Index::candidates`].

use std::collections::BTreeMap;

use crate::matching::PathMatch;
use crate::names::Name;

/// An index over the matches of a table. They are named by their places in the order of precedence.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Index {
    /// Exact paths, sorted, each with its matches.
    exact: Vec<(Name, Vec<usize>)>,
    /// What is judged one by one: patterns, and few prefixes.
    others: Vec<usize>,
    /// Prefixes by segment: the nodes of a tree. Empty where they are judged one by one.
    nodes: Vec<Node>,
}

/// The segments from the tree's root to here are a prefix of whole segments.
#[derive(Clone, Debug, Default, PartialEq)]
struct Node {
    /// The matches with just this prefix, most specific first.
    matches: Vec<usize>,
    /// Where less specific prefixes of the same paths are.
    shorter: Option<usize>,
    /// Next segments, sorted, each with its node.
    children: Vec<(Name, usize)>,
}

/// The node of no segment: matches without a condition on the path, which hold for `*` as well (RFC 9112 section 3.2.4).
const ANY: usize = 0;
/// The node of the empty segment before the first slash: the prefix `/`. It is as specific as no condition at all.
const SLASH: usize = 1;
/// So many prefixes are compared with a path sooner than its segments are looked for.
const FEW: usize = 8;

impl Index {
    /// The index over matches with these conditions on the path, most specific first.
    pub(super) fn new<'m>(ordered: impl Iterator<Item = Option<&'m PathMatch>> + Clone) -> Self {
        Self::with_tree_above(FEW, ordered)
    }

    /// The same with a tree where there are more than `few` prefixes, matches without a condition on the path among them.
    fn with_tree_above<'m>(few: usize, ordered: impl Iterator<Item = Option<&'m PathMatch>> + Clone) -> Self {
        let mut index = Self::default();
        if ordered.clone().filter(|path| matches!(path, None | Some(PathMatch::Prefix(_)))).count() > few {
            let any = Node { children: vec![("".into(), SLASH)], ..Node::default() };
            index.nodes = vec![any, Node::default()];
        }
        let mut exact: BTreeMap<&Name, Vec<usize>> = BTreeMap::new();
        for (place, path) in ordered.enumerate() {
            match path {
                Some(PathMatch::Exact(path)) => exact.entry(path).or_default().push(place),
                Some(PathMatch::Regex(_)) => index.others.push(place),
                Some(PathMatch::Prefix(_)) | None if index.nodes.is_empty() => index.others.push(place),
                Some(PathMatch::Prefix(prefix)) => index.add_prefix(prefix.strip_suffix('/').unwrap_or(prefix), place),
                // Beside those of the prefix `/`, in their common order.
                None => [ANY, SLASH].into_iter().for_each(|node| index.nodes[node].matches.push(place)),
            }
        }
        index.exact = exact.into_iter().map(|(path, places)| (Name::clone(path), places)).collect();
        index
    }

    /// The matches that may hold for `path`, most specific first. O(log n) for each segment of the path that a prefix shares.
    pub(super) fn candidates(&self, path: &str) -> impl Iterator<Item = usize> {
        let exact = self.exact.binary_search_by(|(text, _)| (**text).cmp(path)).map(|at| &self.exact[at].1[..]).unwrap_or_default();
        let longest = self.longest_prefix(path);
        let nodes = std::iter::successors(longest, |node| node.shorter.map(|shorter| &self.nodes[shorter]));
        exact.iter().chain(&self.others).chain(nodes.flat_map(|node| &node.matches)).copied()
    }

    /// The node of the longest known prefix of `path`, by whole segments.
    fn longest_prefix(&self, path: &str) -> Option<&Node> {
        let mut node = self.nodes.first()?;
        for segment in path.split('/') {
            match node.children.binary_search_by(|(text, _)| (**text).cmp(segment)) {
                Ok(at) => node = &self.nodes[node.children[at].1],
                Err(_absent) => break,
            }
        }
        Some(node)
    }

    fn add_prefix(&mut self, prefix: &str, place: usize) {
        let mut node = ANY;
        for segment in prefix.split('/') {
            node = self.child(node, segment);
        }
        self.nodes[node].matches.push(place);
    }

    /// The node of `segment` below `parent`.
    fn child(&mut self, parent: usize, segment: &str) -> usize {
        let children = &self.nodes[parent].children;
        match children.binary_search_by(|(text, _)| (**text).cmp(segment)) {
            Ok(at) => children[at].1,
            Err(at) => {
                let new = self.nodes.len();
                self.nodes.push(Node { shorter: Some(parent), ..Node::default() });
                self.nodes[parent].children.insert(at, (segment.into(), new));
                new
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::matching::{Match, Pattern};

    fn prefix(text: &str) -> Option<PathMatch> {
        Some(PathMatch::Prefix(text.into()))
    }

    /// The places of `conditions`, in order of precedence, that the index gives for `path`, and those that a look at each one gives.
    fn both(few: usize, mut conditions: Vec<Option<PathMatch>>, path: &str) -> (Vec<usize>, Vec<usize>) {
        conditions.sort_by_key(|path| Match { path: path.clone(), ..Match::default() }.rank());
        let index = Index::with_tree_above(few, conditions.iter().map(Option::as_ref));
        let may_hold = |condition: &Option<PathMatch>| match condition {
            None | Some(PathMatch::Regex(_)) => true,
            Some(condition @ (PathMatch::Exact(_) | PathMatch::Prefix(_))) => condition.matches(path),
        };
        let each = conditions.iter().enumerate().filter(|(_, condition)| may_hold(condition)).map(|(place, _)| place);
        (index.candidates(path).collect(), each.collect())
    }

    #[test]
    fn an_index_of_nothing_finds_nothing() {
        assert_eq!(both(0, vec![], "/a"), (vec![], vec![]));
    }

    #[test]
    fn prefixes_are_found_by_whole_segments() {
        let conditions = || vec![prefix("/"), prefix("/a"), prefix("/a/b/"), prefix("/a/bc"), None, prefix("/b")];
        for (path, want) in [("/a/b/c", 4), ("/a/bc/d", 4), ("/a", 3), ("/ab", 2), ("/", 2), ("*", 1)] {
            let (found, each) = both(0, conditions(), path);
            assert_eq!((found.len(), &found), (want, &each), "{path}");
        }
    }

    proptest! {
        /// A tree finds just the matches whose own condition on the path holds, and those that have none to be found by. Without one,
        /// few others are found beside them, in the same order.
        #[test]
        fn what_is_found_is_what_a_look_at_each_match_finds(
            conditions in prop::collection::vec((0..4u8, "[/ab*]{0,6}"), 0..12),
            path in "[/ab*]{0,8}",
        ) {
            let condition = |(kind, text): (u8, String)| match kind {
                0 => None,
                1 => Some(PathMatch::Regex(Pattern::new("/a.*").unwrap())),
                2 => Some(PathMatch::Exact(text.into())),
                _ => prefix(&text),
            };
            let conditions: Vec<_> = conditions.into_iter().map(condition).collect();
            let (found, each) = both(0, conditions.clone(), &path);
            prop_assert_eq!(&found, &each);
            let (found, _) = both(FEW, conditions, &path);
            prop_assert!(found.is_sorted() && each.iter().all(|place| found.contains(place)), "{found:?} {each:?}");
        }
    }
}
