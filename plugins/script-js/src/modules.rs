//! What a script can import: `quipu`, which is the SDK for JavaScript. It imports the router's functions as it does when it
//! is built into a component.

use crate::natives::{self, Table};
use crate::thrown::CODE;
use boa_engine::module::{ModuleLoader, ModuleRequest, Referrer, SyntheticModuleInitializer};
use boa_engine::native_function::NativeFunction;
use boa_engine::{Context, JsNativeError, JsResult, JsString, Module, Source};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

pub(crate) const RUNTIME: &str = include_str!("runtime.js");
const SDK: [(&str, &str); 3] = [
    ("quipu", include_str!("../../../plugin-sdk/js/sdk/quipu.js")),
    ("./config.js", include_str!("../../../plugin-sdk/js/sdk/config.js")),
    ("./json.js", include_str!("../../../plugin-sdk/js/sdk/json.js")),
];

/// Modules by name, each made once.
#[derive(Default)]
pub(crate) struct Modules(RefCell<BTreeMap<String, Module>>);

impl ModuleLoader for Modules {
    async fn load_imported_module(
        self: Rc<Self>,
        referrer: Referrer,
        request: ModuleRequest,
        context: &RefCell<&mut Context>,
    ) -> JsResult<Module> {
        let name = request.specifier().to_std_string_lossy();
        let is_script = referrer.path().is_none_or(|path| path == Path::new(CODE));
        if is_script && name != "quipu" {
            let problem = format!("there is no module {name:?}: a script can import \"quipu\" alone");
            return Err(JsNativeError::syntax().with_message(problem).into());
        }
        self.by_name(if name == "./quipu.js" { "quipu" } else { &name }, &mut context.borrow_mut())
    }
}

impl Modules {
    fn by_name(&self, name: &str, context: &mut Context) -> JsResult<Module> {
        if let Some(module) = self.0.borrow().get(name) {
            return Ok(module.clone());
        }
        let module = match SDK.iter().find(|(of, _)| *of == name) {
            Some((_, source)) => parse(source, name, context)?,
            None => match natives::MODULES.iter().find(|(of, _)| *of == name) {
                Some((_, table)) => native(table, context),
                None => {
                    return Err(JsNativeError::syntax().with_message(format!("there is no module {name:?}")).into());
                }
            },
        };
        self.0.borrow_mut().insert(name.into(), module.clone());
        Ok(module)
    }
}

/// A module of source text, which places in errors name so.
pub(crate) fn parse(source: &str, name: &str, context: &mut Context) -> JsResult<Module> {
    Module::parse(Source::from_bytes(source).with_path(&PathBuf::from(name)), None, context)
}

fn native(table: &'static Table, context: &mut Context) -> Module {
    let names: Vec<JsString> = table.iter().map(|(name, _)| JsString::from(*name)).collect();
    let fill = SyntheticModuleInitializer::from_copy_closure(move |module, context| {
        for (name, function) in table {
            let function = NativeFunction::from_fn_ptr(*function).to_js_function(context.realm());
            module.set_export(&JsString::from(*name), function.into())?;
        }
        Ok(())
    });
    Module::synthetic(&names, fill, None, None, context)
}
