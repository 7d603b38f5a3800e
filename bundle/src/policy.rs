//! Who may do what: IAM policies, trust policies, and policies of the key, buckets and topics.
//!
//! Each statement names its resources. With network isolation SageMaker itself moves requests and results with the execution
//! role; the container has no credentials.

use crate::sagemaker::{Mode, attribute, import, reference, sub};
use serde_json::{Value, json};

fn document(statements: Vec<Value>) -> Value {
    json!({ "Version": "2012-10-17", "Statement": statements })
}

fn allow(id: &str, actions: &[&str], resource: Value) -> Value {
    json!({ "Sid": id, "Effect": "Allow", "Action": actions, "Resource": resource })
}

fn when(mut statement: Value, condition: Value) -> Value {
    statement["Condition"] = condition;
    statement
}

fn service(mut statement: Value, name: Value) -> Value {
    statement["Principal"] = json!({ "Service": name });
    statement
}

fn everyone(mut statement: Value) -> Value {
    statement["Effect"] = json!("Deny");
    statement["Principal"] = json!("*");
    statement
}

/// From this account alone: a service acts for others, too (the confused deputy).
fn this_account() -> Value {
    json!({ "StringEquals": { "aws:SourceAccount": reference("AWS::AccountId") } })
}

fn through(services: &[&str]) -> Value {
    let names: Vec<Value> =
        services.iter().map(|name| sub(&format!("{name}.${{AWS::Region}}.amazonaws.com"))).collect();
    json!({ "StringEquals": { "kms:ViaService": names } })
}

/// Objects of a bucket below folders.
fn objects(bucket: &str, folders: &[&str]) -> Value {
    folders
        .iter()
        .map(|folder| json!({ "Fn::Sub": [format!("arn:${{AWS::Partition}}:s3:::${{Bucket}}/{folder}"), { "Bucket": import(bucket) }] }))
        .collect()
}

/// The same where the bucket is in the same template.
fn own_objects(bucket: &str, folders: &[&str]) -> Value {
    folders.iter().map(|folder| sub(&format!("${{{bucket}.Arn}}/{folder}"))).collect()
}

fn endpoint_arn(name: &str) -> Value {
    sub(&format!("arn:${{AWS::Partition}}:sagemaker:${{AWS::Region}}:${{AWS::AccountId}}:endpoint/{name}"))
}

/// The key's policy: this account's IAM policies decide, and services that log and alarm may use it for that.
pub(crate) fn key() -> Value {
    let root = json!({
        "Sid": "AccountDecides",
        "Effect": "Allow",
        "Principal": { "AWS": sub("arn:${AWS::Partition}:iam::${AWS::AccountId}:root") },
        "Action": "kms:*",
        "Resource": "*",
    });
    let use_it = ["kms:Encrypt*", "kms:Decrypt*", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:Describe*"];
    let logs = when(
        service(allow("Logs", &use_it, json!("*")), sub("logs.${AWS::Region}.amazonaws.com")),
        json!({ "ArnLike": { "kms:EncryptionContext:aws:logs:arn":
            sub("arn:${AWS::Partition}:logs:${AWS::Region}:${AWS::AccountId}:log-group:/aws/sagemaker/*") } }),
    );
    let alarms = when(
        service(
            allow("Alarms", &["kms:Decrypt", "kms:GenerateDataKey*"], json!("*")),
            json!("cloudwatch.amazonaws.com"),
        ),
        this_account(),
    );
    document(vec![root, logs, alarms])
}

fn secure_transport(bucket: &str) -> Vec<Value> {
    let all = json!([attribute(bucket, "Arn"), sub(&format!("${{{bucket}.Arn}}/*"))]);
    vec![
        when(
            everyone(allow("EncryptedTransportOnly", &["s3:*"], all.clone())),
            json!({ "Bool": { "aws:SecureTransport": "false" } }),
        ),
        when(
            everyone(allow("CurrentTransportOnly", &["s3:*"], all)),
            json!({ "NumericLessThan": { "s3:TlsVersion": "1.2" } }),
        ),
    ]
}

/// A data bucket's policy. A request that names no key gets the bucket's, so only naming another one is denied: without the
/// `Null` test, `StringNotEquals` would hold for absent headers, too, and deny what SageMaker writes.
pub(crate) fn bucket(bucket: &str) -> Value {
    let header = "s3:x-amz-server-side-encryption-aws-kms-key-id";
    let algorithm = "s3:x-amz-server-side-encryption";
    let put = |id: &str| everyone(allow(id, &["s3:PutObject"], sub(&format!("${{{bucket}.Arn}}/*"))));
    let mut statements = secure_transport(bucket);
    statements.push(when(
        put("NoOtherKey"),
        json!({ "StringNotEquals": { header: attribute("Key", "Arn") }, "Null": { header: "false" } }),
    ));
    statements.push(when(
        put("NoOtherEncryption"),
        json!({ "StringNotEquals": { algorithm: "aws:kms" }, "Null": { algorithm: "false" } }),
    ));
    document(statements)
}

/// The policy of the bucket of access logs.
pub(crate) fn log_bucket() -> Value {
    let mut statements = secure_transport("LogBucket");
    let write = allow("AccessLogs", &["s3:PutObject"], sub("${LogBucket.Arn}/*"));
    statements.push(when(service(write, json!("logging.s3.amazonaws.com")), this_account()));
    document(statements)
}

/// Alarms may be published.
pub(crate) fn alarm_topic() -> Value {
    let publish = allow("Alarms", &["sns:Publish"], reference("AlarmTopic"));
    document(vec![when(service(publish, json!("cloudwatch.amazonaws.com")), this_account())])
}

/// SageMaker may take the role, for this account.
pub(crate) fn trusts_sagemaker() -> Value {
    document(vec![json!({
        "Effect": "Allow",
        "Principal": { "Service": "sagemaker.amazonaws.com" },
        "Action": "sts:AssumeRole",
        "Condition": this_account(),
    })])
}

/// A principal may take the role; where none was given, whom this account's policies let.
pub(crate) fn trusts(condition: &str, parameter: &str) -> Value {
    let account = sub("arn:${AWS::Partition}:iam::${AWS::AccountId}:root");
    document(vec![json!({
        "Effect": "Allow",
        "Principal": { "AWS": { "Fn::If": [condition, reference(parameter), account] } },
        "Action": "sts:AssumeRole",
    })])
}

/// What SageMaker does in the model's name.
pub(crate) fn execution(mode: Mode) -> Value {
    let logs = "arn:${AWS::Partition}:logs:${AWS::Region}:${AWS::AccountId}:log-group:/aws/sagemaker/*";
    let mut statements = vec![
        allow("RegistryLogin", &["ecr:GetAuthorizationToken"], json!("*")),
        allow(
            "PullImage",
            &["ecr:BatchCheckLayerAvailability", "ecr:GetDownloadUrlForLayer", "ecr:BatchGetImage"],
            attribute("Repository", "Arn"),
        ),
        allow("ReadModel", &["s3:GetObject"], own_objects("ModelBucket", &["models/*"])),
        when(
            allow("UseKey", &["kms:Decrypt", "kms:GenerateDataKey"], attribute("Key", "Arn")),
            through(if mode == Mode::Async { &["s3", "sns"] } else { &["s3"] }),
        ),
        allow(
            "WriteLogs",
            &["logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"],
            json!([sub(logs), sub(&format!("{logs}:*"))]),
        ),
        when(
            allow("WriteMetrics", &["cloudwatch:PutMetricData"], json!("*")),
            json!({ "StringLike": { "cloudwatch:namespace": ["AWS/SageMaker", "/aws/sagemaker/*"] } }),
        ),
        allow("ListModels", &["s3:ListBucket"], attribute("ModelBucket", "Arn")),
    ];
    if mode != Mode::Realtime {
        statements.extend([
            allow("ReadRequests", &["s3:GetObject"], own_objects("DataBucket", &["requests/*"])),
            allow(
                "WriteResults",
                &["s3:PutObject", "s3:AbortMultipartUpload"],
                own_objects("DataBucket", &["results/*", "failures/*"]),
            ),
            allow("ListRequests", &["s3:ListBucket"], attribute("DataBucket", "Arn")),
        ]);
    }
    if mode == Mode::Async {
        let topics = json!([reference("ResultTopic"), reference("FailureTopic")]);
        statements.push(allow("Notify", &["sns:Publish"], topics));
    }
    if mode != Mode::Batch {
        statements.push(encrypted_volumes());
    }
    document(statements)
}

/// SageMaker encrypts the instances' volumes by a grant on the key.
fn encrypted_volumes() -> Value {
    when(
        allow("EncryptVolumes", &["kms:CreateGrant", "kms:DescribeKey"], attribute("Key", "Arn")),
        json!({ "StringEquals": { "kms:ViaService": sub("sagemaker.${AWS::Region}.amazonaws.com") } }),
    )
}

/// Brings images and models and updates the endpoint's stack; cannot read data, nor change roles, buckets or the key.
pub(crate) fn deployer(mode: Mode) -> Value {
    let own =
        |kind: &str| sub(&format!("arn:${{AWS::Partition}}:sagemaker:${{AWS::Region}}:${{AWS::AccountId}}:{kind}/*"));
    let stack = |name: &str| {
        sub(&format!("arn:${{AWS::Partition}}:cloudformation:${{AWS::Region}}:${{AWS::AccountId}}:stack/{name}/*"))
    };
    let mut statements = vec![
        allow("RegistryLogin", &["ecr:GetAuthorizationToken"], json!("*")),
        allow(
            "PushImage",
            &[
                "ecr:BatchCheckLayerAvailability",
                "ecr:BatchGetImage",
                "ecr:CompleteLayerUpload",
                "ecr:DescribeImages",
                "ecr:GetDownloadUrlForLayer",
                "ecr:InitiateLayerUpload",
                "ecr:PutImage",
                "ecr:UploadLayerPart",
            ],
            attribute("Repository", "Arn"),
        ),
        allow("PutModel", &["s3:PutObject", "s3:AbortMultipartUpload"], own_objects("ModelBucket", &["models/*"])),
        allow(
            "PutClientArtifact",
            &["s3:PutObject", "s3:AbortMultipartUpload"],
            own_objects("DataBucket", &["client/*"]),
        ),
        when(allow("UseKey", &["kms:Decrypt", "kms:GenerateDataKey"], attribute("Key", "Arn")), through(&["s3"])),
        allow("ReadFoundation", &["cloudformation:DescribeStacks"], stack("${AWS::StackName}")),
        allow(
            "UpdateEndpointStack",
            &[
                "cloudformation:CreateChangeSet",
                "cloudformation:DescribeChangeSet",
                "cloudformation:ExecuteChangeSet",
                "cloudformation:DeleteChangeSet",
                "cloudformation:DescribeStacks",
                "cloudformation:DescribeStackEvents",
                "cloudformation:GetTemplateSummary",
            ],
            stack("${AWS::StackName}-endpoint"),
        ),
        allow("ReadExports", &["cloudformation:ListExports"], json!("*")),
        when(
            allow("PassExecutionRole", &["iam:PassRole"], attribute("ExecutionRole", "Arn")),
            json!({ "StringEquals": { "iam:PassedToService": "sagemaker.amazonaws.com" } }),
        ),
        allow(
            "Models",
            &["sagemaker:CreateModel", "sagemaker:DeleteModel", "sagemaker:DescribeModel", "sagemaker:AddTags"],
            own("model"),
        ),
    ];
    if mode == Mode::Batch {
        statements.push(allow(
            "Jobs",
            &["sagemaker:CreateTransformJob", "sagemaker:DescribeTransformJob", "sagemaker:StopTransformJob"],
            own("transform-job"),
        ));
        return document(statements);
    }
    let logs = "arn:${AWS::Partition}:logs:${AWS::Region}:${AWS::AccountId}:log-group:/aws/sagemaker/Endpoints/${Name}";
    statements.extend([
        allow(
            "EndpointConfigs",
            &[
                "sagemaker:CreateEndpointConfig",
                "sagemaker:DeleteEndpointConfig",
                "sagemaker:DescribeEndpointConfig",
                "sagemaker:AddTags",
            ],
            own("endpoint-config"),
        ),
        allow(
            "Endpoint",
            &[
                "sagemaker:CreateEndpoint",
                "sagemaker:DeleteEndpoint",
                "sagemaker:DescribeEndpoint",
                "sagemaker:UpdateEndpoint",
                "sagemaker:UpdateEndpointWeightsAndCapacities",
                "sagemaker:AddTags",
            ],
            json!([endpoint_arn("${Name}"), own("endpoint-config")]),
        ),
        encrypted_volumes(),
        allow(
            "LogGroup",
            &[
                "logs:AssociateKmsKey",
                "logs:CreateLogGroup",
                "logs:DeleteLogGroup",
                "logs:DescribeLogGroups",
                "logs:ListTagsForResource",
                "logs:PutRetentionPolicy",
            ],
            json!([sub(logs), sub(&format!("{logs}:*"))]),
        ),
        when(
            allow(
                "Scaling",
                &[
                    "application-autoscaling:DeleteScalingPolicy",
                    "application-autoscaling:DeregisterScalableTarget",
                    "application-autoscaling:PutScalingPolicy",
                    "application-autoscaling:RegisterScalableTarget",
                ],
                sub("arn:${AWS::Partition}:application-autoscaling:${AWS::Region}:${AWS::AccountId}:scalable-target/*"),
            ),
            json!({ "StringEquals": { "application-autoscaling:service-namespace": "sagemaker" } }),
        ),
        allow(
            "ReadScaling",
            &["application-autoscaling:DescribeScalableTargets", "application-autoscaling:DescribeScalingPolicies"],
            json!("*"),
        ),
        allow(
            "Alarms",
            &["cloudwatch:DeleteAlarms", "cloudwatch:DescribeAlarms", "cloudwatch:PutMetricAlarm"],
            json!([
                sub("arn:${AWS::Partition}:cloudwatch:${AWS::Region}:${AWS::AccountId}:alarm:${AWS::StackName}-endpoint-*"),
                // Target tracking names its own alarms.
                sub("arn:${AWS::Partition}:cloudwatch:${AWS::Region}:${AWS::AccountId}:alarm:TargetTracking-endpoint/${Name}/*"),
            ]),
        ),
    ]);
    document(statements)
}

/// What one client may do: put its own keys and requests, invoke, read its own results; not read the model.
pub(crate) fn client(mode: Mode) -> Value {
    let mut statements = vec![
        allow(
            "ReadClientArtifact",
            &["s3:GetObject"],
            json!({ "Fn::Sub": [
                "arn:${AWS::Partition}:s3:::${Bucket}/${ClientArtifactKey}",
                { "Bucket": import("DataBucket") },
            ] }),
        ),
        when(allow("UseKey", &["kms:Decrypt", "kms:GenerateDataKey"], import("KeyArn")), through(&["s3"])),
    ];
    match mode {
        Mode::Async => {
            statements.push(allow("Invoke", &["sagemaker:InvokeEndpointAsync"], endpoint_arn("${EndpointName}")))
        }
        Mode::Realtime => {
            statements.push(allow("Invoke", &["sagemaker:InvokeEndpoint"], endpoint_arn("${EndpointName}")))
        }
        Mode::Batch => {}
    }
    if mode != Mode::Realtime {
        let upload = ["s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"];
        statements.extend([
            // Requests are composed from the key inside S3, which reads it.
            allow("Keys", &[&upload[..], &["s3:GetObject"]].concat(), objects("DataBucket", &["keys/${ClientId}/*"])),
            allow(
                "Requests",
                &[&upload[..], &["s3:DeleteObject"]].concat(),
                objects("DataBucket", &["requests/${ClientId}/*"]),
            ),
            allow(
                "Results",
                &["s3:GetObject", "s3:DeleteObject"],
                objects("DataBucket", &["results/${ClientId}/*", "failures/${ClientId}/*"]),
            ),
        ]);
    }
    document(statements)
}
