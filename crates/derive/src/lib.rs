//! `#[derive(MemSize)]` for [FluxMap](https://docs.rs/fluxmap). With its feature `derive`, FluxMap
//! re-exports the macro as `fluxmap::mem::MemSize`.

#![deny(missing_docs)]
#![forbid(unsafe_code)]

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{format_ident, quote, quote_spanned};
use syn::meta::ParseNestedMeta;
use syn::spanned::Spanned;
use syn::{Attribute, Data, DeriveInput, Error, Field, Fields, Index, LitStr, Member, Path, Result};

/// Derives `fluxmap::mem::MemSize`. The size is that of the value itself, plus the heap memory that
/// each of its fields owns.
///
/// ```
/// use fluxmap::mem::{MemSize, allocated};
///
/// #[derive(MemSize)]
/// enum Shape<T> {
///     Point,
///     Circle { label: String, radius: u32 },
///     Path(Vec<T>),
/// }
///
/// let shape = Shape::Circle::<u64> { label: String::with_capacity(100), radius: 1 };
/// assert_eq!(shape.mem_size(), size_of::<Shape<u64>>() + allocated(100));
/// # let _ = (Shape::Point::<u64>, Shape::Path(vec![1_u64]));
/// ```
///
/// All fields must implement `MemSize`, and so must the type parameters that they mention.
///
/// # Attributes
///
/// With `#[mem_size(skip)]`, a field counts as owning no heap memory, and its type need not implement
/// `MemSize`. Use it for types of other crates, and for memory that should not count:
///
/// ```
/// # mod elsewhere { pub struct Handle; }
/// use fluxmap::mem::MemSize;
///
/// #[derive(MemSize)]
/// struct Session {
///     user: String,
///     #[mem_size(skip)]
///     handle: elsewhere::Handle,
/// }
/// # let session = Session { user: String::new(), handle: elsewhere::Handle };
/// # assert_eq!(session.mem_size(), size_of::<Session>());
/// ```
///
/// `#[mem_size(crate = "path")]` on the type gives the path of FluxMap, if it is not `::fluxmap`:
///
/// ```
/// mod prelude {
///     pub use fluxmap as store;
/// }
///
/// #[derive(prelude::store::mem::MemSize)]
/// #[mem_size(crate = "crate::prelude::store")]
/// struct Name(String);
/// # fn main() {
/// # use prelude::store::mem::MemSize as _;
/// # assert_eq!(Name(String::new()).mem_size(), 24);
/// # }
/// ```
///
/// # Limits
///
/// `MemSize` cannot be derived for a union, because it is not known which field is in use:
///
/// ```compile_fail
/// #[derive(fluxmap::mem::MemSize)]
/// union Either {
///     number: u64,
///     bits: [bool; 64],
/// }
/// ```
///
/// A misspelt attribute, or one in the wrong place, is an error:
///
/// ```compile_fail
/// #[derive(fluxmap::mem::MemSize)]
/// struct Name(#[mem_size(skipped)] String);
/// ```
///
/// ```compile_fail
/// #[derive(fluxmap::mem::MemSize)]
/// #[mem_size(skip)]
/// struct Name(String);
/// ```
///
/// ```compile_fail
/// #[derive(fluxmap::mem::MemSize)]
/// enum Name {
///     #[mem_size(skip)]
///     Known(String),
/// }
/// ```
///
/// A field whose type does not implement `MemSize` is an error, too:
///
/// ```compile_fail
/// struct Unknown;
///
/// #[derive(fluxmap::mem::MemSize)]
/// struct Name(Unknown);
/// ```
#[proc_macro_derive(MemSize, attributes(mem_size))]
pub fn derive_mem_size(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let input = syn::parse_macro_input!(input as DeriveInput);
    implementation(input).unwrap_or_else(Error::into_compile_error).into()
}

fn implementation(input: DeriveInput) -> Result<TokenStream> {
    let mut krate: Path = syn::parse_quote!(::fluxmap);
    options(&input.attrs, |option| {
        if !option.path.is_ident("crate") {
            return Err(option.error("expected `crate = \"path\"`"));
        }
        krate = option.value()?.parse::<LitStr>()?.parse_with(Path::parse_mod_style)?;
        Ok(())
    })?;

    let mut counted = Vec::new();
    let arms = match &input.data {
        Data::Struct(data) => vec![arm(quote!(Self), &data.fields, &krate, &mut counted)?],
        Data::Enum(data) => data
            .variants
            .iter()
            .map(|variant| {
                options(&variant.attrs, |option| Err(option.error("not on variants, only on fields")))?;
                let name = &variant.ident;
                arm(quote!(Self::#name), &variant.fields, &krate, &mut counted)
            })
            .collect::<Result<_>>()?,
        Data::Union(data) => {
            let message = "`MemSize` cannot be derived for a union: it is not known which field is in use";
            return Err(Error::new(data.union_token.span, message));
        }
    };

    let mut generics = input.generics;
    for parameter in generics.type_params_mut() {
        if counted.iter().any(|tokens| mentions(tokens, &parameter.ident)) {
            parameter.bounds.push(syn::parse_quote!(#krate::mem::MemSize));
        }
    }
    let name = input.ident;
    let (impl_generics, type_generics, where_clause) = generics.split_for_impl();
    Ok(quote! {
        #[automatically_derived]
        impl #impl_generics #krate::mem::MemSize for #name #type_generics #where_clause {
            // A field may be a reference. Then the size of the reference itself is wanted.
            #[allow(clippy::size_of_ref)]
            fn mem_size(&self) -> usize {
                // Match on `*self`: for an enum without variants, a match on `self`, which is a reference,
                // would need an arm.
                match *self { #(#arms)* }
            }
        }
    })
}

/// The match arm that adds up the heap memory of the fields of a struct or variant. The types of the
/// fields that count are added to `counted`.
fn arm(
    name: TokenStream,
    fields: &Fields,
    krate: &Path,
    counted: &mut Vec<TokenStream>,
) -> Result<TokenStream> {
    let mut patterns = Vec::new();
    let mut terms = Vec::new();
    for (index, field) in fields.iter().enumerate() {
        if skipped(field)? {
            continue;
        }
        let member = match &field.ident {
            Some(name) => Member::Named(name.clone()),
            None => Member::Unnamed(Index::from(index)),
        };
        let value = format_ident!("__field_{index}", span = Span::mixed_site());
        let ty = &field.ty;
        patterns.push(quote!(#member: ref #value,));
        // With this span, the error for a field that is not `MemSize` points at the field's type.
        let span = ty.span().resolved_at(Span::mixed_site());
        terms.push(quote_spanned! {span=>
            .saturating_add(
                <#ty as #krate::mem::MemSize>::mem_size(#value)
                    .saturating_sub(::core::mem::size_of_val(#value)),
            )
        });
        counted.push(quote!(#ty));
    }
    // A pattern with braces fits structs and variants of all shapes.
    Ok(quote!(#name { #(#patterns)* .. } => ::core::mem::size_of_val(self) #(#terms)*,))
}

/// Whether a field has `#[mem_size(skip)]`.
fn skipped(field: &Field) -> Result<bool> {
    let mut skipped = false;
    options(&field.attrs, |option| {
        if !option.path.is_ident("skip") {
            return Err(option.error("expected `skip`"));
        }
        skipped = true;
        Ok(())
    })?;
    Ok(skipped)
}

/// Calls `each` for every option in `#[mem_size(…)]`.
fn options(attributes: &[Attribute], mut each: impl FnMut(ParseNestedMeta) -> Result<()>) -> Result<()> {
    attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("mem_size"))
        .try_for_each(|attribute| attribute.parse_nested_meta(&mut each))
}

/// Whether a type parameter occurs in a type.
fn mentions(tokens: &TokenStream, parameter: &syn::Ident) -> bool {
    tokens.clone().into_iter().any(|token| match token {
        TokenTree::Group(group) => mentions(&group.stream(), parameter),
        TokenTree::Ident(ident) => ident == *parameter,
        _ => false,
    })
}
