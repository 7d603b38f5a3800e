//! CloudFormation templates of a SageMaker deployment, as JSON.
//!
//! Three stacks with three owners: the *foundation* (key, buckets, repository, roles, topics) is an administrator's, the *endpoint*
//! (model, endpoint, scaling, alarms) the deployer's, and there is one *client* stack (a role) for each client.

use crate::policy;
use serde_json::{Map, Value, json};

/// How a circuit is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Requests and results are objects in S3; scales to zero.
    Async,
    /// Requests and results travel in calls of at most 25 MB and 60 s.
    Realtime,
    /// Jobs over a folder of requests; no endpoint.
    Batch,
}

impl Mode {
    /// The name on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Async => "async",
            Mode::Realtime => "realtime",
            Mode::Batch => "batch",
        }
    }
}

/// What templates are made from.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Stacks, repository and endpoint are named after it.
    pub name: String,
    /// How the circuit is served.
    pub mode: Mode,
    /// Tag of the image.
    pub tag: String,
    /// Where the model's bucket has the model.
    pub model_key: String,
    /// Where the data bucket has the client artifact.
    pub client_key: String,
    /// Proposed instance type.
    pub instance_type: String,
}

/// The model's only production variant.
const VARIANT: &str = "AllTraffic";

/// A reference to a parameter or resource.
pub(crate) fn reference(name: &str) -> Value {
    json!({ "Ref": name })
}

/// An attribute of a resource.
pub(crate) fn attribute(name: &str, attribute: &str) -> Value {
    json!({ "Fn::GetAtt": [name, attribute] })
}

/// Text with references.
pub(crate) fn sub(text: &str) -> Value {
    json!({ "Fn::Sub": text })
}

/// An output of the foundation.
pub(crate) fn import(output: &str) -> Value {
    json!({ "Fn::ImportValue": { "Fn::Sub": format!("${{Foundation}}-{output}") } })
}

fn parameter(default: &str, description: &str, pattern: &str) -> Value {
    json!({ "Type": "String", "Default": default, "Description": description, "AllowedPattern": pattern })
}

fn number(default: u32, description: &str, least: u32, most: u32) -> Value {
    json!({ "Type": "Number", "Default": default, "Description": description, "MinValue": least, "MaxValue": most })
}

fn resource(kind: &str, properties: Value) -> Value {
    json!({ "Type": kind, "Properties": properties })
}

/// A resource that outlives its stack: what is in it cannot be made again.
fn kept(kind: &str, properties: Value) -> Value {
    json!({ "Type": kind, "DeletionPolicy": "Retain", "UpdateReplacePolicy": "Retain", "Properties": properties })
}

/// The same with reasons why checks of checkov do not apply.
fn excused(mut resource: Value, reasons: &[(&str, &str)]) -> Value {
    let skip: Vec<Value> = reasons.iter().map(|(id, comment)| json!({ "id": id, "comment": comment })).collect();
    resource["Metadata"] = json!({ "checkov": { "skip": skip } });
    resource
}

fn export(value: Value, name: &str, description: &str) -> Value {
    json!({
        "Value": value,
        "Description": description,
        "Export": { "Name": sub(&format!("${{AWS::StackName}}-{name}")) },
    })
}

fn template(description: String, parameters: Value, conditions: Value, resources: Value, outputs: Value) -> Value {
    let mut template = Map::new();
    template.insert("AWSTemplateFormatVersion".to_owned(), json!("2010-09-09"));
    template.insert("Description".to_owned(), description.into());
    let parts =
        [("Parameters", parameters), ("Conditions", conditions), ("Resources", resources), ("Outputs", outputs)];
    for (name, part) in parts {
        if part.as_object().is_some_and(|part| !part.is_empty()) {
            template.insert(name.to_owned(), part);
        }
    }
    Value::Object(template)
}

const NAME_PATTERN: &str = "^[a-zA-Z0-9][a-zA-Z0-9-]{0,62}$";
const ARN_PATTERN: &str = "^(arn:aws[a-z-]*:iam::[0-9]{12}:.+)?$";

fn bucket(rules: Value, encryption: Value, log_prefix: Option<&str>) -> Value {
    let mut properties = json!({
        "BucketEncryption": { "ServerSideEncryptionConfiguration": [encryption] },
        "PublicAccessBlockConfiguration": {
            "BlockPublicAcls": true,
            "BlockPublicPolicy": true,
            "IgnorePublicAcls": true,
            "RestrictPublicBuckets": true,
        },
        "OwnershipControls": { "Rules": [{ "ObjectOwnership": "BucketOwnerEnforced" }] },
        "VersioningConfiguration": { "Status": "Enabled" },
        "LifecycleConfiguration": { "Rules": rules },
    });
    if let Some(prefix) = log_prefix {
        properties["LoggingConfiguration"] =
            json!({ "DestinationBucketName": reference("LogBucket"), "LogFilePrefix": prefix });
    }
    kept("AWS::S3::Bucket", properties)
}

fn expiry(prefix: &str, days: u32) -> Value {
    json!({
        "Id": format!("{prefix}-expires"),
        "Status": "Enabled",
        "Prefix": format!("{prefix}/"),
        "ExpirationInDays": days,
        "NoncurrentVersionExpiration": { "NoncurrentDays": 1 },
    })
}

fn unfinished_uploads() -> Value {
    json!({
        "Id": "unfinished-uploads-and-old-versions",
        "Status": "Enabled",
        "AbortIncompleteMultipartUpload": { "DaysAfterInitiation": 1 },
        "NoncurrentVersionExpiration": { "NoncurrentDays": 30 },
        "ExpiredObjectDeleteMarker": true,
    })
}

fn topic() -> Value {
    resource("AWS::SNS::Topic", json!({ "KmsMasterKeyId": reference("Key") }))
}

/// The foundation: what outlives models.
pub fn foundation(settings: &Settings) -> Value {
    let kms = json!({
        "BucketKeyEnabled": true,
        "ServerSideEncryptionByDefault": { "SSEAlgorithm": "aws:kms", "KMSMasterKeyID": attribute("Key", "Arn") },
    });
    // S3 delivers access logs to buckets under its own keys only.
    let s3_key = json!({ "ServerSideEncryptionByDefault": { "SSEAlgorithm": "AES256" } });
    let log_rule = json!({
        "Id": "logs-expire",
        "Status": "Enabled",
        "ExpirationInDays": 90,
        "NoncurrentVersionExpiration": { "NoncurrentDays": 1 },
        "AbortIncompleteMultipartUpload": { "DaysAfterInitiation": 1 },
    });
    let mut resources = json!({
        "Key": kept("AWS::KMS::Key", json!({
            "Description": sub("Data and model of ${Name}"),
            "EnableKeyRotation": true,
            "PendingWindowInDays": 30,
            "KeyPolicy": policy::key(),
        })),
        "KeyAlias": resource("AWS::KMS::Alias", json!({
            "AliasName": sub("alias/${Name}"),
            "TargetKeyId": reference("Key"),
        })),
        "LogBucket": excused(
            bucket(json!([log_rule]), s3_key, None),
            &[("CKV_AWS_18", "The bucket of access logs: logging it into itself would not end.")],
        ),
        "LogBucketPolicy": resource("AWS::S3::BucketPolicy", json!({
            "Bucket": reference("LogBucket"),
            "PolicyDocument": policy::log_bucket(),
        })),
        "ModelBucket": bucket(json!([unfinished_uploads()]), kms.clone(), Some("model/")),
        "ModelBucketPolicy": resource("AWS::S3::BucketPolicy", json!({
            "Bucket": reference("ModelBucket"),
            "PolicyDocument": policy::bucket("ModelBucket"),
        })),
        "DataBucket": bucket(
            json!([
                expiry("requests", 1),
                expiry("results", 7),
                expiry("failures", 7),
                expiry("keys", 30),
                unfinished_uploads(),
            ]),
            kms,
            Some("data/"),
        ),
        "DataBucketPolicy": resource("AWS::S3::BucketPolicy", json!({
            "Bucket": reference("DataBucket"),
            "PolicyDocument": policy::bucket("DataBucket"),
        })),
        "Repository": resource("AWS::ECR::Repository", json!({
            "RepositoryName": reference("Name"),
            "ImageTagMutability": "IMMUTABLE",
            "ImageScanningConfiguration": { "ScanOnPush": true },
            "EncryptionConfiguration": { "EncryptionType": "KMS", "KmsKey": attribute("Key", "Arn") },
            "LifecyclePolicy": { "LifecyclePolicyText": UNTAGGED_IMAGES },
        })),
        "AlarmTopic": topic(),
        "AlarmTopicPolicy": resource("AWS::SNS::TopicPolicy", json!({
            "Topics": [reference("AlarmTopic")],
            "PolicyDocument": policy::alarm_topic(),
        })),
        "AlarmSubscription": {
            "Type": "AWS::SNS::Subscription",
            "Condition": "HasEmail",
            "Properties": { "TopicArn": reference("AlarmTopic"), "Protocol": "email", "Endpoint": reference("AlarmEmail") },
        },
        "ExecutionRole": resource("AWS::IAM::Role", json!({
            "Description": "SageMaker takes it to load the model and to move requests and results",
            "AssumeRolePolicyDocument": policy::trusts_sagemaker(),
            "Policies": [{ "PolicyName": "execution", "PolicyDocument": policy::execution(settings.mode) }],
        })),
        "DeployerRole": resource("AWS::IAM::Role", json!({
            "Description": "Brings a new model or image to the endpoint",
            "AssumeRolePolicyDocument": policy::trusts("HasDeployer", "DeployerPrincipalArn"),
            "Policies": [{ "PolicyName": "deployer", "PolicyDocument": policy::deployer(settings.mode) }],
        })),
    });
    let mut outputs = json!({
        "KeyArn": export(attribute("Key", "Arn"), "KeyArn", "Key of all data"),
        "DataBucket": export(reference("DataBucket"), "DataBucket", "Bucket of keys, requests and results"),
        "ModelBucket": export(reference("ModelBucket"), "ModelBucket", "Bucket of models"),
        "Repository": export(reference("Repository"), "Repository", "Name of the image's repository"),
        "RepositoryUri": { "Value": attribute("Repository", "RepositoryUri"), "Description": "Where to push the image" },
        "ExecutionRoleArn": export(attribute("ExecutionRole", "Arn"), "ExecutionRoleArn", "Role of the model"),
        "DeployerRoleArn": { "Value": attribute("DeployerRole", "Arn"), "Description": "Role for deploying" },
        "AlarmTopicArn": export(reference("AlarmTopic"), "AlarmTopicArn", "Topic of alarms"),
    });
    if settings.mode == Mode::Async {
        for name in ["ResultTopic", "FailureTopic"] {
            resources[name] = topic();
            outputs[format!("{name}Arn")] = export(reference(name), &format!("{name}Arn"), "Topic of notifications");
        }
    }
    let name = &settings.name;
    template(
        format!("Encrypted inference with {name}: key, buckets, repository, roles and topics"),
        json!({
            "Name": parameter(name, "Name of the endpoint and of the image's repository", "^[a-z][a-z0-9-]{0,47}$"),
            "DeployerPrincipalArn": parameter("", "Who may take the deployer's role; empty: this account", ARN_PATTERN),
            "AlarmEmail": parameter("", "Where alarms go; empty: nowhere but the topic", "^(.+@.+)?$"),
        }),
        json!({
            "HasEmail": { "Fn::Not": [{ "Fn::Equals": [reference("AlarmEmail"), ""] }] },
            "HasDeployer": { "Fn::Not": [{ "Fn::Equals": [reference("DeployerPrincipalArn"), ""] }] },
        }),
        resources,
        outputs,
    )
}

/// Images that a later push left without a tag.
const UNTAGGED_IMAGES: &str = r#"{"rules":[{"rulePriority":1,"description":"untagged images","selection":{"tagStatus":"untagged","countType":"sinceImagePushed","countUnit":"days","countNumber":30},"action":{"type":"expire"}}]}"#;

/// The model, and unless it serves batches the endpoint with its scaling and alarms.
pub fn endpoint(settings: &Settings) -> Value {
    let name = &settings.name;
    let repository = json!({ "Repository": import("Repository") });
    let image = "${AWS::AccountId}.dkr.ecr.${AWS::Region}.${AWS::URLSuffix}/${Repository}:${ImageTag}";
    let model = resource(
        "AWS::SageMaker::Model",
        json!({
            "EnableNetworkIsolation": true,
            "ExecutionRoleArn": import("ExecutionRoleArn"),
            "PrimaryContainer": {
                "Image": { "Fn::Sub": [image, repository] },
                "ModelDataUrl": { "Fn::Sub": ["s3://${Bucket}/${ModelKey}", { "Bucket": import("ModelBucket") }] },
                "Environment": { "TACIT_LOG": "info" },
            },
        }),
    );
    let mut parameters = json!({
        "Foundation": parameter(name, "Name of the foundation's stack", NAME_PATTERN),
        "ImageTag": parameter(&settings.tag, "Tag of the image that was pushed", "^[a-zA-Z0-9._-]{1,128}$"),
        "ModelKey": parameter(&settings.model_key, "Where the model's bucket has the model", "^models/.+[.]tar[.]gz$"),
    });
    let mut resources = json!({ "Model": model });
    let mut outputs = json!({
        "ModelName": { "Value": attribute("Model", "ModelName"), "Description": "Name of the model" },
    });
    if settings.mode != Mode::Batch {
        parameters["EndpointName"] = parameter(name, "Name of the endpoint", NAME_PATTERN);
        parameters["InstanceType"] =
            parameter(&settings.instance_type, "Type of the instances", "^ml[.][a-z0-9-]+[.][a-z0-9]+$");
        parameters["MaxInstances"] = number(4, "Most instances at a time", 1, 100);
        parameters["LogRetentionDays"] = json!({
            "Type": "Number",
            "Default": 90,
            "Description": "Days that logs are kept",
            "AllowedValues": [7, 14, 30, 60, 90, 180, 365, 400, 731],
        });
        outputs["EndpointName"] =
            json!({ "Value": attribute("Endpoint", "EndpointName"), "Description": "Name of the endpoint" });
        served(settings.mode, &mut parameters, &mut resources);
    }
    let what = match settings.mode {
        Mode::Async => "an asynchronous endpoint that scales to zero",
        Mode::Realtime => "a real-time endpoint",
        Mode::Batch => "a model for batch transform jobs",
    };
    template(format!("Encrypted inference with {name}: {what}"), parameters, json!({}), resources, outputs)
}

/// The endpoint of a model.
fn served(mode: Mode, parameters: &mut Value, resources: &mut Value) {
    let mut config = json!({
        "KmsKeyId": import("KeyArn"),
        "ProductionVariants": [{
            "VariantName": VARIANT,
            "ModelName": attribute("Model", "ModelName"),
            "InstanceType": reference("InstanceType"),
            "InitialInstanceCount": 1,
            "InitialVariantWeight": 1,
        }],
    });
    if mode == Mode::Async {
        parameters["RequestsPerInstance"] =
            number(2, "Requests sent to an instance at a time: one is evaluated while the next one arrives", 1, 16);
        config["AsyncInferenceConfig"] = json!({
            "ClientConfig": { "MaxConcurrentInvocationsPerInstance": reference("RequestsPerInstance") },
            "OutputConfig": {
                "S3OutputPath": { "Fn::Sub": ["s3://${Bucket}/results/", { "Bucket": import("DataBucket") }] },
                "S3FailurePath": { "Fn::Sub": ["s3://${Bucket}/failures/", { "Bucket": import("DataBucket") }] },
                "KmsKeyId": import("KeyArn"),
                "NotificationConfig": { "SuccessTopic": import("ResultTopicArn"), "ErrorTopic": import("FailureTopicArn") },
            },
        });
    }
    resources["LogGroup"] = resource(
        "AWS::Logs::LogGroup",
        json!({
            "LogGroupName": sub("/aws/sagemaker/Endpoints/${EndpointName}"),
            "RetentionInDays": reference("LogRetentionDays"),
            "KmsKeyId": import("KeyArn"),
        }),
    );
    resources["LogGroup"]["DeletionPolicy"] = json!("Delete");
    resources["LogGroup"]["UpdateReplacePolicy"] = json!("Delete");
    resources["EndpointConfig"] = resource("AWS::SageMaker::EndpointConfig", config);
    resources["Endpoint"] = resource(
        "AWS::SageMaker::Endpoint",
        json!({
            "EndpointName": reference("EndpointName"),
            "EndpointConfigName": attribute("EndpointConfig", "EndpointConfigName"),
            // An update must not undo what the scaling did.
            "RetainAllVariantProperties": true,
        }),
    );
    resources["Endpoint"]["DependsOn"] = json!(["LogGroup"]);
    let least = if mode == Mode::Async { 0 } else { 1 };
    parameters["MinInstances"] = number(least, "Fewest instances at a time", least, 100);
    resources["ScalableTarget"] = resource(
        "AWS::ApplicationAutoScaling::ScalableTarget",
        json!({
            "ServiceNamespace": "sagemaker",
            "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
            "ResourceId": { "Fn::Sub": [
                format!("endpoint/${{Endpoint}}/variant/{VARIANT}"),
                { "Endpoint": attribute("Endpoint", "EndpointName") },
            ] },
            "MinCapacity": reference("MinInstances"),
            "MaxCapacity": reference("MaxInstances"),
        }),
    );
    match mode {
        Mode::Async => scale_by_backlog(parameters, resources),
        Mode::Realtime | Mode::Batch => scale_by_requests(parameters, resources),
    }
    alarms(mode, resources);
}

fn scaling_policy(kind: &str, configuration: (&str, Value)) -> Value {
    let mut properties = json!({
        "PolicyName": sub(&format!("${{AWS::StackName}}-{kind}")),
        "PolicyType": if configuration.0.starts_with("Step") { "StepScaling" } else { "TargetTrackingScaling" },
        "ScalingTargetId": reference("ScalableTarget"),
    });
    properties[configuration.0] = configuration.1;
    resource("AWS::ApplicationAutoScaling::ScalingPolicy", properties)
}

fn endpoint_dimension() -> Value {
    json!([{ "Name": "EndpointName", "Value": attribute("Endpoint", "EndpointName") }])
}

/// Target tracking never leaves zero while the backlog is below its target, so the first instance has a policy of its own.
fn scale_by_backlog(parameters: &mut Value, resources: &mut Value) {
    parameters["BacklogPerInstance"] = number(4, "Waiting requests for each instance that scaling aims at", 1, 1000);
    resources["BacklogPolicy"] = scaling_policy(
        "backlog",
        (
            "TargetTrackingScalingPolicyConfiguration",
            json!({
                "TargetValue": reference("BacklogPerInstance"),
                "CustomizedMetricSpecification": {
                    "Namespace": "AWS/SageMaker",
                    "MetricName": "ApproximateBacklogSizePerInstance",
                    "Dimensions": endpoint_dimension(),
                    "Statistic": "Average",
                },
                "ScaleInCooldown": 600,
                "ScaleOutCooldown": 300,
            }),
        ),
    );
    resources["FromZeroPolicy"] = scaling_policy(
        "from-zero",
        (
            "StepScalingPolicyConfiguration",
            json!({
                "AdjustmentType": "ChangeInCapacity",
                "Cooldown": 300,
                "MetricAggregationType": "Average",
                "StepAdjustments": [{ "MetricIntervalLowerBound": 0, "ScalingAdjustment": 1 }],
            }),
        ),
    );
    let mut alarm =
        alarm("Requests wait and no instance runs", "HasBacklogWithoutCapacity", "Average", 1.0, 60, 2, false);
    alarm["Properties"]["TreatMissingData"] = json!("missing");
    alarm["Properties"]["AlarmActions"] = json!([reference("FromZeroPolicy")]);
    resources["BacklogWithoutCapacityAlarm"] = alarm;
}

fn scale_by_requests(parameters: &mut Value, resources: &mut Value) {
    parameters["RequestsPerInstance"] = number(2, "Requests in each instance that scaling aims at", 1, 64);
    resources["ConcurrencyPolicy"] = scaling_policy(
        "concurrency",
        (
            "TargetTrackingScalingPolicyConfiguration",
            json!({
                "TargetValue": reference("RequestsPerInstance"),
                "PredefinedMetricSpecification": {
                    "PredefinedMetricType": "SageMakerVariantConcurrentRequestsPerModelHighResolution",
                },
                "ScaleInCooldown": 300,
                "ScaleOutCooldown": 60,
            }),
        ),
    );
}

/// An alarm at or above a threshold in so many periods of so many seconds.
fn alarm(what: &str, metric: &str, statistic: &str, threshold: f64, period: u32, periods: u32, variant: bool) -> Value {
    let mut dimensions = endpoint_dimension();
    if variant && let Some(dimensions) = dimensions.as_array_mut() {
        dimensions.push(json!({ "Name": "VariantName", "Value": VARIANT }));
    }
    resource(
        "AWS::CloudWatch::Alarm",
        json!({
            "AlarmDescription": what,
            "Namespace": "AWS/SageMaker",
            "MetricName": metric,
            "Dimensions": dimensions,
            "Statistic": statistic,
            "Period": period,
            "EvaluationPeriods": periods,
            "DatapointsToAlarm": periods,
            "Threshold": threshold,
            "ComparisonOperator": "GreaterThanOrEqualToThreshold",
            "TreatMissingData": "notBreaching",
            "AlarmActions": [import("AlarmTopicArn")],
        }),
    )
}

fn alarms(mode: Mode, resources: &mut Value) {
    resources["ServerErrorAlarm"] =
        alarm("The server answered with errors of its own", "Invocation5XXErrors", "Sum", 1.0, 300, 1, true);
    resources["ClientErrorAlarm"] =
        alarm("Clients send requests that the server refuses", "Invocation4XXErrors", "Sum", 20.0, 300, 1, true);
    if mode == Mode::Async {
        resources["AgeAlarm"] = alarm(
            "Requests wait for an hour or longer",
            "ApproximateAgeOfOldestRequest",
            "Maximum",
            3600.0,
            300,
            1,
            false,
        );
        resources["ExpiredAlarm"] =
            alarm("Requests expired before an instance took them", "ExpiredRequests", "Sum", 1.0, 300, 1, false);
    } else {
        // SageMaker gives a call up after 60 s; the metric is in microseconds.
        resources["LatencyAlarm"] = alarm("Answers take 45 s or longer", "ModelLatency", "Maximum", 45e6, 300, 2, true);
    }
}

/// One client's role.
pub fn client(settings: &Settings) -> Value {
    let name = &settings.name;
    let mut parameters = json!({
        "Foundation": parameter(name, "Name of the foundation's stack", NAME_PATTERN),
        "ClientArtifactKey": parameter(&settings.client_key, "Where the data bucket has the client artifact", "^client/.+$"),
        "ClientPrincipalArn": parameter("", "Who may take the role; empty: this account", ARN_PATTERN),
    });
    if settings.mode != Mode::Batch {
        parameters["EndpointName"] = parameter(name, "Name of the endpoint", NAME_PATTERN);
    }
    if settings.mode != Mode::Realtime {
        parameters["ClientId"] =
            parameter("client-1", "Name of the client; its objects are below it", "^[a-z0-9][a-z0-9-]{0,31}$");
    }
    template(
        format!("Encrypted inference with {name}: one client's role"),
        parameters,
        json!({ "HasClient": { "Fn::Not": [{ "Fn::Equals": [reference("ClientPrincipalArn"), ""] }] } }),
        json!({
            "ClientRole": resource("AWS::IAM::Role", json!({
                "Description": "Sends encrypted queries and reads their results",
                "AssumeRolePolicyDocument": policy::trusts("HasClient", "ClientPrincipalArn"),
                "Policies": [{ "PolicyName": "client", "PolicyDocument": policy::client(settings.mode) }],
            })),
        }),
        json!({ "ClientRoleArn": { "Value": attribute("ClientRole", "Arn"), "Description": "The client's role" } }),
    )
}

/// The parameters of a template at their defaults, to be edited.
pub fn parameters(template: &Value) -> Value {
    let Some(parameters) = template["Parameters"].as_object() else { return json!([]) };
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let one = |(name, parameter): (&String, &Value)| json!({ "ParameterKey": name, "ParameterValue": text(&parameter["Default"]) });
    parameters.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn settings(mode: Mode) -> Settings {
        Settings {
            name: "iris".to_owned(),
            mode,
            tag: "abc".to_owned(),
            model_key: "models/abc/model.tar.gz".to_owned(),
            client_key: "client/abc/client.tacit".to_owned(),
            instance_type: "ml.m5.xlarge".to_owned(),
        }
    }

    const MODES: [Mode; 3] = [Mode::Async, Mode::Realtime, Mode::Batch];

    /// Every name that the template refers to, and every output of the foundation that it imports.
    fn references(value: &Value, found: &mut BTreeSet<String>, imports: &mut BTreeSet<String>) {
        match value {
            Value::Object(object) => {
                for (key, value) in object {
                    match (key.as_str(), value) {
                        ("Ref", Value::String(name)) => {
                            found.insert(name.clone());
                        }
                        ("Fn::GetAtt", Value::Array(parts)) => {
                            found.insert(parts[0].as_str().unwrap().to_owned());
                        }
                        ("Fn::ImportValue", value) => {
                            let text = value["Fn::Sub"].as_str().unwrap();
                            imports.insert(text.strip_prefix("${Foundation}-").unwrap().to_owned());
                            found.insert("Foundation".to_owned());
                        }
                        ("Fn::Sub", Value::String(text)) => found.extend(variables(text)),
                        ("Fn::Sub", Value::Array(parts)) => {
                            let own = parts[1].as_object().unwrap();
                            found.extend(variables(parts[0].as_str().unwrap()).filter(|name| !own.contains_key(name)));
                            references(&parts[1], found, imports);
                        }
                        ("Condition", Value::String(name)) => {
                            found.insert(name.clone());
                        }
                        ("Fn::If", Value::Array(parts)) => {
                            found.insert(parts[0].as_str().unwrap().to_owned());
                            references(value, found, imports);
                        }
                        ("DependsOn", Value::Array(names)) => {
                            found.extend(names.iter().map(|name| name.as_str().unwrap().to_owned()));
                        }
                        (_, value) => references(value, found, imports),
                    }
                }
            }
            Value::Array(values) => values.iter().for_each(|value| references(value, found, imports)),
            _ => {}
        }
    }

    fn variables(text: &str) -> impl Iterator<Item = String> + '_ {
        text.split("${").skip(1).map(|rest| {
            let name = rest.split('}').next().unwrap();
            name.split('.').next().unwrap().to_owned()
        })
    }

    fn keys(template: &Value, part: &str) -> BTreeSet<String> {
        template[part].as_object().map(|part| part.keys().cloned().collect()).unwrap_or_default()
    }

    #[test]
    fn every_reference_resolves_and_every_parameter_is_used() {
        for mode in MODES {
            let foundation = foundation(&settings(mode));
            let exports: BTreeSet<String> = foundation["Outputs"]
                .as_object()
                .unwrap()
                .values()
                .filter_map(|output| output["Export"]["Name"]["Fn::Sub"].as_str())
                .map(|name| name.strip_prefix("${AWS::StackName}-").unwrap().to_owned())
                .collect();
            for template in [foundation.clone(), endpoint(&settings(mode)), client(&settings(mode))] {
                let (mut found, mut imports) = (BTreeSet::new(), BTreeSet::new());
                references(&template, &mut found, &mut imports);
                let parameters = keys(&template, "Parameters");
                let known: BTreeSet<String> = ["Resources", "Conditions"]
                    .iter()
                    .flat_map(|part| keys(&template, part))
                    .chain(parameters.clone())
                    .collect();
                let unknown: Vec<&String> =
                    found.iter().filter(|name| !known.contains(*name) && !name.starts_with("AWS::")).collect();
                assert!(unknown.is_empty(), "{mode:?}: {unknown:?} in {}", template["Description"]);
                let unused: Vec<&String> = parameters.iter().filter(|name| !found.contains(*name)).collect();
                assert!(unused.is_empty(), "{mode:?}: {unused:?} in {}", template["Description"]);
                assert!(imports.is_subset(&exports), "{mode:?}: {imports:?} of {exports:?}");
            }
        }
    }

    #[test]
    fn models_are_isolated_and_async_endpoints_reach_zero() {
        for mode in MODES {
            let template = endpoint(&settings(mode));
            assert_eq!(template["Resources"]["Model"]["Properties"]["EnableNetworkIsolation"], true);
            assert_eq!(template["Resources"]["Endpoint"].is_null(), mode == Mode::Batch);
        }
        let template = endpoint(&settings(Mode::Async));
        assert_eq!(template["Parameters"]["MinInstances"]["Default"], 0);
        let alarm = &template["Resources"]["BacklogWithoutCapacityAlarm"]["Properties"];
        assert_eq!(alarm["AlarmActions"][0]["Ref"], "FromZeroPolicy");
        assert_eq!(endpoint(&settings(Mode::Realtime))["Parameters"]["MinInstances"]["Default"], 1);
    }

    #[test]
    fn parameter_files_name_every_parameter() {
        let template = endpoint(&settings(Mode::Async));
        let file = parameters(&template);
        assert_eq!(file.as_array().unwrap().len(), keys(&template, "Parameters").len());
        assert!(file.as_array().unwrap().iter().all(|one| one["ParameterValue"].is_string()));
    }
}
