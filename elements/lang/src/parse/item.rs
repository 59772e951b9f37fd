//! Files, services, rules, links, elements.

use crate::ast::{
    Arg, Element, Expr, Handler, HandlerKind, Ident, Item, Link, Param, Rpc, Rule, Scope, State, TypeExpr,
};
use crate::diag::Diagnostic;
use crate::lex::Tok;
use crate::source::Span;

use super::{ERRORS_MAX, Parsed, Parser, Told};

const ITEM_WORDS: [&str; 6] = ["use", "proto", "service", "chain", "every", "element"];

impl Parser<'_> {
    pub(super) fn file(&mut self) -> Vec<Item> {
        let mut items = Vec::new();
        while self.token().tok != Tok::Eof && self.errors.len() < ERRORS_MAX {
            self.name = None;
            match self.item() {
                Ok(item) => items.push(item),
                Err(Told) => {
                    self.failed.extend(self.name.take());
                    self.skip_to_item();
                }
            }
        }
        items
    }

    /// After an error: to the next line outside of braces that begins an item.
    fn skip_to_item(&mut self) {
        let mut depth = 0_u32;
        loop {
            let token = self.token();
            match token.tok {
                Tok::Eof => return,
                // An item word at the start of a line ends even a block that was never closed.
                Tok::Ident if token.starts_line && (depth == 0 || self.begins_item()) => return,
                Tok::Str(_) if token.starts_line && depth == 0 => return,
                Tok::Punct("{") => depth += 1,
                Tok::Punct("}") => depth = depth.saturating_sub(1),
                _ => {}
            }
            self.bump();
        }
    }

    pub(super) fn begins_item(&self) -> bool {
        let follows = matches!(self.nth(1).tok, Tok::Ident | Tok::Str(_));
        follows && ITEM_WORDS.iter().any(|w| self.is_word(w))
    }

    fn item(&mut self) -> Parsed<Item> {
        let names = matches!(self.nth(1).tok, Tok::Ident | Tok::Str(_));
        if names && self.eat_word("use") {
            let path = self.string("a file name in quotes")?;
            let alias = if self.eat_word("as") { Some(self.ident("a name")?) } else { None };
            return Ok(Item::Use { path, alias });
        }
        if names && self.eat_word("proto") {
            return Ok(Item::Proto { path: self.string("a file name in quotes")? });
        }
        if names && self.eat_word("service") {
            return self.service();
        }
        if names && self.eat_word("chain") {
            let name = self.ident("a name for the chain")?;
            self.name = Some(name.text.clone());
            self.expect("=", "and the chain's links")?;
            return Ok(Item::Chain { name, links: self.links()? });
        }
        if names && self.eat_word("element") {
            return self.element().map(Item::Element);
        }
        self.rule().map(Item::Rule)
    }

    fn service(&mut self) -> Parsed<Item> {
        let name = self.name("the service's name")?;
        self.name = Some(name.text.clone());
        if self.is("-") {
            let error =
                Diagnostic::error(name.span.to(self.token().span), "a name with a minus stands in quotes");
            self.error(error.label("expected \"…\"").help("as in `service \"product-page\"`"));
            return Err(Told);
        }
        let mut entries = Vec::new();
        if self.eat("{") {
            while !self.eat("}") {
                let key = self.ident("a key (`endpoints`, `hosts`, `from`, …) or `}`")?;
                self.expect(":", "after the key")?;
                entries.push((key, self.expr()?));
                self.eat(",");
            }
        }
        Ok(Item::Service { name, entries })
    }

    fn rule(&mut self) -> Parsed<Rule> {
        let start = self.token().span;
        let every = (self.nth_is(1, "*") || matches!(self.nth(1).tok, Tok::Ident | Tok::Str(_)))
            && self.eat_word("every");
        let mut sources = Vec::new();
        if !self.eat("*") {
            loop {
                match self.token().tok {
                    Tok::Ident | Tok::Str(_) => sources.push(self.name("a service")?),
                    _ => {
                        return self.expected(
                            "an item: `service`, `chain`, `element`, `use`, or a rule `a -> b: …`",
                        );
                    }
                }
                if !self.eat(",") {
                    break;
                }
            }
        }
        if !self.is("->") {
            return self.not_a_rule(&sources);
        }
        self.bump();
        let destination = if self.eat("*") { None } else { Some(self.name("the called service, or `*`")?) };
        let rpc = if destination.is_some() && self.eat(".") { Some(self.rpc()?) } else { None };
        self.expect(":", "and the chain, after the destination")?;
        let links = self.links()?;
        Ok(Rule { every, sources, destination, rpc, links, span: start.to(self.last_span()) })
    }

    fn not_a_rule<T>(&mut self, sources: &[Ident]) -> Parsed<T> {
        if let [only] = sources {
            let near = crate::suggest::nearest(&only.text, ITEM_WORDS.into_iter());
            let follows = matches!(self.token().tok, Tok::Ident | Tok::Str(_));
            if let (Some(near), true) = (near, follows) {
                let error = Diagnostic::error(only.span, format!("`{}` begins no item", only.text))
                    .label("expected `service`, `chain`, `element`, `use`, `proto` or a rule")
                    .help(format!("did you mean `{near}`?"));
                self.error(error);
                return Err(Told);
            }
        }
        if self.is("-") {
            let error = Diagnostic::error(self.token().span, "expected `->`, found `-`")
                .label("expected `->`")
                .help("a name with a minus stands in quotes: \"product-page\"");
            self.error(error);
            return Err(Told);
        }
        self.expected("`->` and the called service")
    }

    /// `[ package "." ] Service "/" ( Method | "*" )`
    pub(super) fn rpc(&mut self) -> Parsed<Rpc> {
        let first = self.ident("a service of the proto, `pkg.Service/Method`")?;
        let mut service = first.text;
        while self.eat(".") {
            let next = self.ident("the rest of the service's name")?;
            service.push('.');
            service.push_str(&next.text);
        }
        self.expect("/", "and the method")?;
        let method = if self.eat("*") { None } else { Some(self.ident("a method, or `*`")?.text) };
        Ok(Rpc { service, method })
    }

    fn links(&mut self) -> Parsed<Vec<Link>> {
        let mut links = vec![self.link(None)?];
        loop {
            let span = self.token().span;
            if self.eat("-") {
                links.push(self.link(None)?);
            } else if self.eat("|") {
                links.push(self.link(Some(span))?);
            } else if self.is("->") && !self.token().starts_line {
                // `A -> B` among links is a rule's arrow in the wrong place.
                let error = Diagnostic::error(span, "links are joined by `-`").label("expected `-`");
                self.error(error);
                return Err(Told);
            } else {
                return Ok(links);
            }
        }
    }

    fn link(&mut self, wire: Option<Span>) -> Parsed<Link> {
        let mut name = self.ident("an element")?;
        while self.eat(".") {
            let rest = self.ident("an element of that file")?;
            name = Ident { text: format!("{}.{}", name.text, rest.text), span: name.span.to(rest.span) };
        }
        let args = if self.eat("(") { Some(self.args()?) } else { None };
        let span = name.span.to(self.last_span());
        let mut when = None;
        if self.is_word("when") && self.nth_is(1, "(") {
            self.bump();
            self.bump();
            when = Some(self.expr()?);
            self.expect(")", "after the condition")?;
        }
        let is_source = self.nth_is(1, "->") || self.nth_is(1, ",");
        let dry = if self.is_word("dry") && !is_source { Some(self.bump().span) } else { None };
        Ok(Link { name, args, when, dry, wire, scope: String::new(), span })
    }

    /// After `(`: arguments to `)`.
    pub(super) fn args(&mut self) -> Parsed<Vec<Arg>> {
        let outer = std::mem::replace(&mut self.no_message, false);
        let mut args = Vec::new();
        while !self.eat(")") {
            let named = self.token().tok == Tok::Ident && self.nth_is(1, ":");
            let name = if named { Some(self.ident("a name")?) } else { None };
            if named {
                self.bump();
            }
            args.push(Arg { name, value: self.argument()? });
            if !self.eat(",") && !self.is(")") {
                return self.expected("`,` or `)` after the argument");
            }
        }
        self.no_message = outer;
        Ok(args)
    }

    fn element(&mut self) -> Parsed<Element> {
        let name = self.ident("the element's name")?;
        self.name = Some(name.text.clone());
        let mut params = Vec::new();
        if self.eat("(") {
            while !self.eat(")") {
                params.push(self.param()?);
                if !self.eat(",") && !self.is(")") {
                    return self.expected("`,` or `)` after the parameter");
                }
            }
        }
        self.expect("{", "and the element's handlers")?;
        let mut element = Element { name, params, states: Vec::new(), handlers: Vec::new() };
        while !self.eat("}") {
            if self.is_word("state") {
                element.states.push(self.state()?);
            } else if self.is_word("request") || self.is_word("response") {
                element.handlers.push(self.handler()?);
            } else {
                let near = crate::suggest::nearest(
                    self.text_of(self.token().span),
                    ["state", "request", "response"].into_iter(),
                );
                let error = Diagnostic::error(
                    self.token().span,
                    format!("expected `state`, `request`, `response` or `}}`, found {}", self.found()),
                )
                .label("expected a state or a handler");
                self.error(match near {
                    Some(near) => error.help(format!("did you mean `{near}`?")),
                    None => error,
                });
                return Err(Told);
            }
        }
        Ok(element)
    }

    fn param(&mut self) -> Parsed<Param> {
        let name = self.ident("a parameter's name")?;
        self.expect(":", "and the parameter's type")?;
        let is_call = self.is_word("call") && self.nth_is(1, "=>");
        if is_call {
            self.bump();
            self.bump();
        }
        let ty = self.type_expr()?;
        let default = if self.eat("=") { Some(self.expr()?) } else { None };
        Ok(Param { name, is_call, ty, default })
    }

    pub(super) fn type_expr(&mut self) -> Parsed<TypeExpr> {
        self.nested(|p| {
            let first = p.ident("a type")?;
            let (mut name, mut args) = (first.text, Vec::new());
            while p.eat(".") {
                name.push('.');
                name.push_str(&p.ident("the rest of the type's name")?.text);
            }
            if p.eat("<") {
                loop {
                    args.push(p.type_expr()?);
                    if !p.eat(",") {
                        break;
                    }
                }
                p.close_angle()?;
            }
            let optional = p.eat("?");
            Ok(TypeExpr { name, args, optional, span: first.span.to(p.last_span()) })
        })
    }

    /// The `>` of a type; in `list<int>= …` it is lexed as one with the `=`.
    fn close_angle(&mut self) -> Parsed<()> {
        if self.is(">=") {
            if let Some(token) = self.lexed.tokens.get_mut(self.at) {
                token.tok = Tok::Punct("=");
                token.span.start += 1;
            }
            return Ok(());
        }
        self.expect(">", "after the type's arguments").map(|_| ())
    }

    fn state(&mut self) -> Parsed<State> {
        self.bump();
        let scope = if self.eat_word("call") {
            Scope::Call
        } else if self.eat_word("shard") {
            Scope::Shard
        } else if self.eat_word("node") {
            Scope::Node
        } else if self.token().tok == Tok::Ident && matches!(self.nth(1).tok, Tok::Punct(":" | "=")) {
            let name = self.text_of(self.token().span);
            let error = Diagnostic::error(self.token().span, format!("where does `{name}` live?"))
                .label("expected `call`, `shard` or `node` before it")
                .help(
                    "`call`: one for each call; `shard`: one for each core; `node`: one for the whole node",
                );
            self.error(error);
            // It goes on as what its type can be.
            if self.nth_is_word(2, "map") { Scope::Shard } else { Scope::Call }
        } else {
            return self.expected("where the state lives: `call`, `shard` or `node`");
        };
        let name = self.ident("the state's name")?;
        let ty = if self.eat(":") { Some(self.type_expr()?) } else { None };
        let mut options = Vec::new();
        if self.eat("[") {
            while !self.eat("]") {
                let mut key = self.ident("`max`, `evict`, `refuse`, `share` or `ttl`")?;
                // A size in bytes is a number like any other but here.
                if key.text == "max" && self.text_of(self.token().span).ends_with('B') {
                    key.text = "max_bytes".to_owned();
                }
                let value = if self.is(",") || self.is("]") { None } else { Some(self.expr()?) };
                options.push((key, value));
                if !self.eat(",") && !self.is("]") {
                    return self.expected("`,` or `]` after the option");
                }
            }
        }
        let init: Option<Expr> = if self.eat("=") { Some(self.expr()?) } else { None };
        Ok(State { scope, name, ty, options, init })
    }

    fn handler(&mut self) -> Parsed<Handler> {
        let start = self.token().span;
        let is_request = self.is_word("request");
        self.bump();
        let is_message = self.eat_word("message");
        let kind = match (is_request, is_message) {
            (true, false) => HandlerKind::Request,
            (true, true) => HandlerKind::RequestMessage,
            (false, false) => HandlerKind::Response,
            (false, true) => HandlerKind::ResponseMessage,
        };
        let span = start.to(self.last_span());
        Ok(Handler { kind, body: self.block()?, span })
    }
}
