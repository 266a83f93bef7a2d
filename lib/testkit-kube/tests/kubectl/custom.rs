//! Custom resources with kubectl.

use crate::harness::{Kubectl, cells, unique};

fn definition(group: &str) -> String {
    format!(
        "apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: widgets.{group}
spec:
  group: {group}
  scope: Namespaced
  names: {{plural: widgets, singular: widget, kind: Widget, shortNames: [wd]}}
  versions:
  - name: v1
    served: true
    storage: true
    subresources:
      status: {{}}
    additionalPrinterColumns:
    - {{name: Size, type: integer, jsonPath: .spec.size}}
    - {{name: Mode, type: string, jsonPath: .spec.mode, priority: 1}}
    - {{name: Age, type: date, jsonPath: .metadata.creationTimestamp}}
    schema:
      openAPIV3Schema:
        type: object
        description: A widget for tests.
        properties:
          spec:
            type: object
            required: [size]
            properties:
              size: {{type: integer, maximum: 9, description: How large it is.}}
              mode: {{type: string, default: plain}}
          status:
            type: object
            x-kubernetes-preserve-unknown-fields: true
"
    )
}

fn widget(group: &str, spec: &str) -> String {
    format!("apiVersion: {group}/v1\nkind: Widget\nmetadata: {{name: w}}\nspec: {spec}\n")
}

async fn install(kubectl: &Kubectl) -> String {
    let group = format!("{}.example.com", unique("g"));
    let said = kubectl.say_with("apply -f -", &definition(&group)).await;
    let expected =
        format!("customresourcedefinition.apiextensions.k8s.io/widgets.{group} created\n");
    assert_eq!(said, expected);
    let wait = format!("wait --for=condition=Established crd/widgets.{group} --timeout=20s");
    kubectl.say(&wait).await;
    group
}

#[tokio::test]
async fn a_custom_resource_is_used_like_any_other() {
    let kubectl = Kubectl::start().await;
    let group = install(&kubectl).await;
    let said = kubectl
        .say_with("apply -f -", &widget(&group, "{size: 3}"))
        .await;
    assert_eq!(said, format!("widget.{group}/w created\n"));
    let again = kubectl
        .say_with("apply -f -", &widget(&group, "{size: 3}"))
        .await;
    assert_eq!(again, format!("widget.{group}/w unchanged\n"));
    let changed = kubectl
        .say_with("apply -f -", &widget(&group, "{size: 4}"))
        .await;
    assert_eq!(changed, format!("widget.{group}/w configured\n"));
    let table = kubectl.say(&format!("get widgets.{group}")).await;
    assert_eq!(cells(&table), [vec!["NAME", "SIZE"], vec!["w", "4"]]);
    let wide = kubectl.say(&format!("get widgets.{group} -o wide")).await;
    assert!(
        wide.starts_with("NAME   SIZE   MODE    AGE\nw      4      plain   "),
        "{wide}"
    );
    let described = kubectl.say(&format!("describe widgets.{group} w")).await;
    assert!(described.contains("Size:  4"), "{described}");
    let said = kubectl.say(&format!("delete widgets.{group} w")).await;
    assert!(
        said.starts_with(&format!("widget.{group} \"w\" deleted")),
        "{said}"
    );
    kubectl.say(&format!("delete crd widgets.{group}")).await;
}

#[tokio::test]
async fn a_wrong_custom_resource_is_refused_by_field() {
    let kubectl = Kubectl::start().await;
    let group = install(&kubectl).await;
    let said = kubectl
        .try_with("apply -f -", &widget(&group, "{size: 10}"))
        .await
        .fails();
    let expected = "The Widget \"w\" is invalid: spec.size: Invalid value: 10: spec.size in body should \
                    be less than or equal to 9\n";
    assert_eq!(said, expected);
    let said = kubectl
        .try_with("apply -f -", &widget(&group, "{}"))
        .await
        .fails();
    assert!(said.contains("size"), "{said}");
    let unknown = widget(&group, "{size: 1, colour: red}");
    let said = kubectl.try_with("apply -f -", &unknown).await.fails();
    assert!(said.contains("colour"), "{said}");
    kubectl.say(&format!("delete crd widgets.{group}")).await;
}

#[tokio::test]
async fn a_custom_resource_is_explained() {
    let kubectl = Kubectl::start().await;
    let group = install(&kubectl).await;
    kubectl.forget();
    let said = kubectl
        .say(&format!("explain widgets.spec --api-version={group}/v1"))
        .await;
    assert!(said.contains("size"), "{said}");
    assert!(said.contains("How large it is."), "{said}");
    kubectl.say(&format!("delete crd widgets.{group}")).await;
}
