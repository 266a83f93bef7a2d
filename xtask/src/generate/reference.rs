//! The reference of the operator's resources, from the schemas of their CRDs.

use std::{fmt::Write as _, path::PathBuf};

use anyhow::Context as _;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionVersion, JSONSchemaProps,
    JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use mesh_api::sail::condition::{Meaning, conditions_of};

use super::Generated;

const PATH: &str = "docs/reference/resources.md";

const HEAD: &str = "# Resources of the operator

<!-- Written by `cargo xtask gen` from the CRDs in lib/mesh-api. -->

Group `sailoperator.io`. All are cluster-scoped and in the category `istio-io`. A value that the tables do not have is kept
as it is and reported in the condition ValuesRecognized; one marked *open* is passed to Kubernetes as it is.

`state` is `Healthy`, or the reason of the first of Reconciled, Ready and DependenciesHealthy (for a tag: Reconciled and
InUse) that does not hold.
";

/// The page.
pub(super) fn files() -> anyhow::Result<Vec<Generated>> {
    let mut page = HEAD.to_owned();
    for crd in mesh_api::sail::crds() {
        resource(&mut page, &crd)?;
    }
    Ok(vec![(PathBuf::from(PATH), page)])
}

fn resource(page: &mut String, crd: &CustomResourceDefinition) -> anyhow::Result<()> {
    let kind = &crd.spec.names.kind;
    let stored = crd.spec.versions.first().context("a CRD has a version")?;
    let root = schema(stored).context("a version has a schema")?;
    writeln!(
        page,
        "\n## {kind}\n\n{}\n",
        root.description.as_deref().unwrap_or_default()
    )?;
    let short = crd.spec.names.short_names.iter().flatten();
    let names: Vec<_> = short.map(|name| format!(", `{name}`")).collect();
    writeln!(
        page,
        "`{}`{}. Versions: {}.",
        crd.spec.names.plural,
        names.concat(),
        versions(crd)
    )?;
    rules(page, root)?;
    for part in ["spec", "status"] {
        let fields = root.properties.as_ref().and_then(|fields| fields.get(part));
        let fields = fields.with_context(|| format!("{kind} has a {part}"))?;
        writeln!(page, "\n### {kind}.{part}\n")?;
        rules(page, fields)?;
        page.push_str("| field | type | default | what it is |\n|---|---|---|---|\n");
        table(page, fields, "")?;
    }
    conditions(page, kind, conditions_of(kind))
}

fn schema(version: &CustomResourceDefinitionVersion) -> Option<&JSONSchemaProps> {
    version.schema.as_ref()?.open_api_v3_schema.as_ref()
}

fn versions(crd: &CustomResourceDefinition) -> String {
    let version = |version: &CustomResourceDefinitionVersion| {
        let note = if version.deprecated == Some(true) {
            " (deprecated)"
        } else {
            ""
        };
        format!("`{}`{note}", version.name)
    };
    crd.spec
        .versions
        .iter()
        .map(version)
        .collect::<Vec<_>>()
        .join(", ")
}

/// What must hold for a schema as a whole.
fn rules(page: &mut String, schema: &JSONSchemaProps) -> anyhow::Result<()> {
    for rule in schema.x_kubernetes_validations.iter().flatten() {
        writeln!(
            page,
            "Rule: {}.\n",
            rule.message.as_deref().unwrap_or(&rule.rule)
        )?;
    }
    Ok(())
}

/// A row for each field that is no part with fields of its own, and those of the parts after it.
fn table(page: &mut String, schema: &JSONSchemaProps, path: &str) -> anyhow::Result<()> {
    let required = schema.required.as_deref().unwrap_or_default();
    for (name, field) in schema.properties.iter().flatten() {
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        let must = required.contains(name) && field.default.is_none();
        row(page, &path, field, must)?;
        match (&field.items, &field.additional_properties) {
            (Some(JSONSchemaPropsOrArray::Schema(item)), _) => {
                table(page, item, &format!("{path}[]"))?;
            }
            (_, Some(JSONSchemaPropsOrBool::Schema(value))) => {
                table(page, value, &format!("{path}.*"))?;
            }
            _ => table(page, field, &path)?,
        }
    }
    Ok(())
}

fn row(page: &mut String, path: &str, field: &JSONSchemaProps, must: bool) -> anyhow::Result<()> {
    let default = field
        .default
        .as_ref()
        .map(|default| format!("`{}`", default.0))
        .unwrap_or_default();
    let mut text = field
        .description
        .as_deref()
        .unwrap_or_default()
        .replace('\n', " ");
    if must {
        text.push_str(" **Required.**");
    }
    // Every version there is stands in the schema, and would fill the page.
    let choices = field.enum_.as_deref().unwrap_or_default();
    if !choices.is_empty() && !path.ends_with("version") {
        let choices: Vec<_> = choices
            .iter()
            .map(|choice| format!("`{}`", choice.0.as_str().unwrap_or_default()))
            .collect();
        write!(text, " One of {}.", choices.join(", "))?;
    }
    for rule in field.x_kubernetes_validations.iter().flatten() {
        write!(
            text,
            " Rule: {}.",
            rule.message.as_deref().unwrap_or(&rule.rule)
        )?;
    }
    writeln!(
        page,
        "| `{path}` | {} | {default} | {} |",
        type_of(field),
        text.trim().replace('|', "\\|")
    )?;
    Ok(())
}

fn type_of(schema: &JSONSchemaProps) -> String {
    if schema.x_kubernetes_int_or_string == Some(true) {
        return "text or whole number".to_owned();
    }
    match (
        schema.type_.as_deref(),
        &schema.items,
        &schema.additional_properties,
    ) {
        (Some("array"), Some(JSONSchemaPropsOrArray::Schema(item)), _) => {
            format!("list of {}", type_of(item))
        }
        (Some("object"), _, Some(JSONSchemaPropsOrBool::Schema(value))) => {
            format!("map to {}", type_of(value))
        }
        (Some("object"), ..) if schema.properties.is_none() => "object, *open*".to_owned(),
        (Some("string"), ..) => "text".to_owned(),
        (Some("integer"), ..) => "whole number".to_owned(),
        (Some(other), ..) => other.to_owned(),
        (None, ..) => "*open*".to_owned(),
    }
}

fn conditions(page: &mut String, kind: &str, conditions: &[Meaning]) -> anyhow::Result<()> {
    writeln!(page, "\n### Conditions of {kind}\n")?;
    page.push_str("| type | reason | what it says |\n|---|---|---|\n");
    for condition in conditions {
        writeln!(page, "| `{}` | | {} |", condition.type_, condition.holds)?;
        for (reason, meaning) in condition.reasons {
            writeln!(page, "| | `{reason}` | {meaning} |")?;
        }
    }
    Ok(())
}
