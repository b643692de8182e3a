//! Every path that a module writes, wherever it stands: in imports, in types and expressions, in the arguments of
//! macros, in attributes.

use std::collections::BTreeSet;

use proc_macro2::{Literal, TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{
    Attribute, Block, Expr, ExprCall, ImplItem, Item, Macro, Meta, Path, Stmt, TraitItem, VisRestricted,
};

use crate::names::{Names, Target};
use crate::source::{self, EXTERN, Module, ModulePath, Scope};

/// A module of the project that another one needs.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrow {
    pub to: ModulePath,
    pub line: usize,
    /// The path as it is written.
    pub text: String,
}

/// All arrows that start in a module, those to itself left out.
pub fn arrows(names: &Names<'_>, module: &Module) -> BTreeSet<Arrow> {
    let mut walk = Walk { names, module, blocks: Vec::new(), arrows: BTreeSet::new() };
    module.items.iter().for_each(|item| walk.visit_item(item));
    walk.arrows
}

struct Walk<'a> {
    names: &'a Names<'a>,
    module: &'a Module,
    /// The names of the blocks around, the innermost last.
    blocks: Vec<Scope>,
    arrows: BTreeSet<Arrow>,
}

impl Walk<'_> {
    fn path(&mut self, segments: &[String], line: usize) {
        // A name alone was counted where it was imported, unless a glob brought it. Variables are no imports.
        let named = match segments {
            [name] if name.starts_with(char::is_uppercase) => {
                vec![self.names.by_glob(self.module, &self.blocks, name)]
            }
            [_] => return,
            _ => self.names.resolve(self.module, &self.blocks, segments),
        };
        self.add(named.into_iter().flatten(), segments, line);
    }

    fn called(&mut self, name: &str, line: usize) {
        let targets = self.names.by_glob(self.module, &self.blocks, name);
        self.add(targets, &[name.to_owned()], line);
    }

    fn add(&mut self, targets: impl IntoIterator<Item = Target>, segments: &[String], line: usize) {
        let text = segments.join("::").replace("::::", "::");
        for target in targets {
            let to = target.module().clone();
            if to != self.module.path {
                self.arrows.insert(Arrow { to, line, text: text.clone() });
            }
        }
    }

    fn import(&mut self, item: &Item) {
        for import in source::imports(item) {
            let named = self.names.resolve(self.module, &self.blocks, &import.segments);
            self.add(named.into_iter().flatten(), &import.segments, import.line);
        }
    }

    /// Paths in tokens that only a macro understands.
    fn tokens(&mut self, tokens: TokenStream) {
        let (mut path, mut line, mut colons, mut field) = (Vec::new(), 0, 0, false);
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.path(&path, line);
                        path.clear();
                    }
                    if path.is_empty() {
                        line = ident.span().start().line;
                        path.extend((colons == 2).then(|| EXTERN.to_owned()));
                    }
                    if !field {
                        path.push(ident.to_string());
                    }
                    (colons, field) = (0, false);
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' && colons < 2 => colons += 1,
                other => {
                    self.path(&path, line);
                    path.clear();
                    colons = 0;
                    field = false;
                    match other {
                        TokenTree::Group(group) => self.tokens(group.stream()),
                        TokenTree::Punct(punct) => field = punct.as_char() == '.',
                        TokenTree::Literal(literal) => self.literal(&literal),
                        TokenTree::Ident(_) => {}
                    }
                }
            }
        }
        self.path(&path, line);
    }

    /// A path in a string, as `#[serde(with = "...")]` takes it.
    fn literal(&mut self, literal: &Literal) {
        let text = literal.to_string();
        let Some(text) = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) else { return };
        if let Ok(path) = syn::parse_str::<Path>(text) {
            let segments = segments(&path);
            if segments.len() > 1 {
                self.path(&segments, literal.span().start().line);
            }
        }
    }
}

impl<'ast> Visit<'ast> for Walk<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if source::test_only(source::attributes(item)) {
            return;
        }
        match item {
            Item::Use(_) => self.import(item),
            // A module of its own.
            Item::Mod(_) => {}
            _ => visit::visit_item(self, item),
        }
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        if !source::test_only(source::attributes_in_impl(item)) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_trait_item(&mut self, item: &'ast TraitItem) {
        if !source::test_only(source::attributes_in_trait(item)) {
            visit::visit_trait_item(self, item);
        }
    }

    fn visit_block(&mut self, block: &'ast Block) {
        let items = block.stmts.iter().filter_map(|statement| match statement {
            Stmt::Item(item) => Some(item),
            _ => None,
        });
        self.blocks.push(Scope::of(items, None));
        visit::visit_block(self, block);
        self.blocks.pop();
    }

    fn visit_path(&mut self, path: &'ast Path) {
        self.path(&segments(path), path.span().start().line);
        visit::visit_path(self, path);
    }

    fn visit_expr_call(&mut self, call: &'ast ExprCall) {
        if let Expr::Path(function) = &*call.func
            && let Some(name) = function.path.get_ident()
        {
            self.called(&name.to_string(), name.span().start().line);
        }
        visit::visit_expr_call(self, call);
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        self.visit_path(&call.path);
        self.tokens(call.tokens.clone());
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        match &attribute.meta {
            Meta::List(list) => self.tokens(list.tokens.clone()),
            Meta::NameValue(value) if !value.path.is_ident("doc") => self.visit_expr(&value.value),
            _ => {}
        }
    }

    // `pub(in crate::ledger)` imports nothing.
    fn visit_vis_restricted(&mut self, _: &'ast VisRestricted) {}
}

fn segments(path: &Path) -> Vec<String> {
    let start = path.leading_colon.map(|_| EXTERN.to_owned());
    start.into_iter().chain(path.segments.iter().map(|segment| segment.ident.to_string())).collect()
}
