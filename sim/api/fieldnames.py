"""The fields that the builtin kinds have, so that a misspelt one is noticed as on a real API server.

`TYPES` names the fields of each type of the Kubernetes API (v1.36): `spec>PodSpec` holds an object of that type,
`containers*Container` a list of them, any other field a value that is not looked into. Volume sources of particular
storage systems are left out, so their fields are not checked.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from sim.api.resources import Resource

Json = dict[str, Any]
Field = tuple[str, str]

TYPES: dict[str, str] = {
    "Affinity": "nodeAffinity>NodeAffinity podAffinity>PodAffinity podAntiAffinity>PodAntiAffinity",
    "AppArmorProfile": "localhostProfile type",
    "AttachedVolume": "devicePath name",
    "Capabilities": "add drop",
    "ClientIPConfig": "timeoutSeconds",
    "ClusterTrustBundleProjection": "labelSelector>LabelSelector name optional path signerName",
    "Condition": "lastTransitionTime message observedGeneration reason status type",
    "ConfigMap": "apiVersion binaryData data immutable kind metadata>ObjectMeta",
    "ConfigMapEnvSource": "name optional",
    "ConfigMapKeySelector": "key name optional",
    "ConfigMapNodeConfigSource": "kubeletConfigKey name namespace resourceVersion uid",
    "ConfigMapProjection": "items*KeyToPath name optional",
    "ConfigMapVolumeSource": "defaultMode items*KeyToPath name optional",
    "Container": (
        "args command env*EnvVar envFrom*EnvFromSource image imagePullPolicy lifecycle>Lifecycle "
        "livenessProbe>Probe name ports*ContainerPort readinessProbe>Probe resizePolicy*ContainerResizePolicy "
        "resources>ResourceRequirements restartPolicy restartPolicyRules*ContainerRestartRule "
        "securityContext>SecurityContext startupProbe>Probe stdin stdinOnce terminationMessagePath "
        "terminationMessagePolicy tty volumeDevices*VolumeDevice volumeMounts*VolumeMount workingDir"
    ),
    "ContainerExtendedResourceRequest": "containerName requestName resourceName",
    "ContainerImage": "names sizeBytes",
    "ContainerPort": "containerPort hostIP hostPort name protocol",
    "ContainerResizePolicy": "resourceName restartPolicy",
    "ContainerRestartRule": "action exitCodes>ContainerRestartRuleOnExitCodes",
    "ContainerRestartRuleOnExitCodes": "operator values",
    "ContainerState": (
        "running>ContainerStateRunning terminated>ContainerStateTerminated waiting>ContainerStateWaiting"
    ),
    "ContainerStateRunning": "startedAt",
    "ContainerStateTerminated": "containerID exitCode finishedAt message reason signal startedAt",
    "ContainerStateWaiting": "message reason",
    "ContainerStatus": (
        "allocatedResources allocatedResourcesStatus*ResourceStatus containerID image imageID "
        "lastState>ContainerState name ready resources>ResourceRequirements restartCount started "
        "state>ContainerState stopSignal user>ContainerUser volumeMounts*VolumeMountStatus"
    ),
    "ContainerUser": "linux>LinuxContainerUser",
    "CronJob": "apiVersion kind metadata>ObjectMeta spec>CronJobSpec status>CronJobStatus",
    "CronJobSpec": (
        "concurrencyPolicy failedJobsHistoryLimit jobTemplate>JobTemplateSpec schedule "
        "startingDeadlineSeconds successfulJobsHistoryLimit suspend timeZone"
    ),
    "CronJobStatus": "active*ObjectReference lastScheduleTime lastSuccessfulTime",
    "DaemonEndpoint": "Port",
    "DaemonSet": "apiVersion kind metadata>ObjectMeta spec>DaemonSetSpec status>DaemonSetStatus",
    "DaemonSetCondition": "lastTransitionTime message reason status type",
    "DaemonSetSpec": (
        "minReadySeconds revisionHistoryLimit selector>LabelSelector template>PodTemplateSpec "
        "updateStrategy>DaemonSetUpdateStrategy"
    ),
    "DaemonSetStatus": (
        "collisionCount conditions*DaemonSetCondition currentNumberScheduled desiredNumberScheduled "
        "numberAvailable numberMisscheduled numberReady numberUnavailable observedGeneration "
        "updatedNumberScheduled"
    ),
    "DaemonSetUpdateStrategy": "rollingUpdate>RollingUpdateDaemonSet type",
    "Deployment": "apiVersion kind metadata>ObjectMeta spec>DeploymentSpec status>DeploymentStatus",
    "DeploymentCondition": "lastTransitionTime lastUpdateTime message reason status type",
    "DeploymentSpec": (
        "minReadySeconds paused progressDeadlineSeconds replicas revisionHistoryLimit selector>LabelSelector "
        "strategy>DeploymentStrategy template>PodTemplateSpec"
    ),
    "DeploymentStatus": (
        "availableReplicas collisionCount conditions*DeploymentCondition observedGeneration readyReplicas "
        "replicas terminatingReplicas unavailableReplicas updatedReplicas"
    ),
    "DeploymentStrategy": "rollingUpdate>RollingUpdateDeployment type",
    "DownwardAPIProjection": "items*DownwardAPIVolumeFile",
    "DownwardAPIVolumeFile": ("fieldRef>ObjectFieldSelector mode path resourceFieldRef>ResourceFieldSelector"),
    "EmptyDirVolumeSource": "medium sizeLimit",
    "EnvFromSource": "configMapRef>ConfigMapEnvSource prefix secretRef>SecretEnvSource",
    "EnvVar": "name value valueFrom>EnvVarSource",
    "EnvVarSource": (
        "configMapKeyRef>ConfigMapKeySelector fieldRef>ObjectFieldSelector fileKeyRef>FileKeySelector "
        "resourceFieldRef>ResourceFieldSelector secretKeyRef>SecretKeySelector"
    ),
    "EphemeralContainer": (
        "args command env*EnvVar envFrom*EnvFromSource image imagePullPolicy lifecycle>Lifecycle "
        "livenessProbe>Probe name ports*ContainerPort readinessProbe>Probe resizePolicy*ContainerResizePolicy "
        "resources>ResourceRequirements restartPolicy restartPolicyRules*ContainerRestartRule "
        "securityContext>SecurityContext startupProbe>Probe stdin stdinOnce targetContainerName "
        "terminationMessagePath terminationMessagePolicy tty volumeDevices*VolumeDevice "
        "volumeMounts*VolumeMount workingDir"
    ),
    "Event": (
        "action apiVersion count eventTime firstTimestamp involvedObject>ObjectReference kind lastTimestamp "
        "message metadata>ObjectMeta reason related>ObjectReference reportingComponent reportingInstance "
        "series>EventSeries source>EventSource type"
    ),
    "EventSeries": "count lastObservedTime",
    "EventSource": "component host",
    "ExecAction": "command",
    "FileKeySelector": "key optional path volumeName",
    "GRPCAction": "port service",
    "HTTPGetAction": "host httpHeaders*HTTPHeader path port scheme",
    "HTTPHeader": "name value",
    "HostAlias": "hostnames ip",
    "HostIP": "ip",
    "HostPathVolumeSource": "path type",
    "ImageVolumeStatus": "imageRef",
    "Job": "apiVersion kind metadata>ObjectMeta spec>JobSpec status>JobStatus",
    "JobCondition": "lastProbeTime lastTransitionTime message reason status type",
    "JobSpec": (
        "activeDeadlineSeconds backoffLimit backoffLimitPerIndex completionMode completions managedBy "
        "manualSelector maxFailedIndexes parallelism podFailurePolicy>PodFailurePolicy podReplacementPolicy "
        "selector>LabelSelector successPolicy>SuccessPolicy suspend template>PodTemplateSpec "
        "ttlSecondsAfterFinished"
    ),
    "JobStatus": (
        "active completedIndexes completionTime conditions*JobCondition failed failedIndexes ready startTime "
        "succeeded terminating uncountedTerminatedPods>UncountedTerminatedPods"
    ),
    "JobTemplateSpec": "metadata>ObjectMeta spec>JobSpec",
    "KeyToPath": "key mode path",
    "LabelSelector": "matchExpressions*LabelSelectorRequirement matchLabels",
    "LabelSelectorRequirement": "key operator values",
    "Lease": "apiVersion kind metadata>ObjectMeta spec>LeaseSpec",
    "LeaseSpec": (
        "acquireTime holderIdentity leaseDurationSeconds leaseTransitions preferredHolder renewTime strategy"
    ),
    "Lifecycle": "postStart>LifecycleHandler preStop>LifecycleHandler stopSignal",
    "LifecycleHandler": ("exec>ExecAction httpGet>HTTPGetAction sleep>SleepAction tcpSocket>TCPSocketAction"),
    "LinuxContainerUser": "gid supplementalGroups uid",
    "LoadBalancerIngress": "hostname ip ipMode ports*PortStatus",
    "LoadBalancerStatus": "ingress*LoadBalancerIngress",
    "LocalObjectReference": "name",
    "ManagedFieldsEntry": "apiVersion fieldsType fieldsV1 manager operation subresource time",
    "ModifyVolumeStatus": "status targetVolumeAttributesClassName",
    "Namespace": "apiVersion kind metadata>ObjectMeta spec>NamespaceSpec status>NamespaceStatus",
    "NamespaceCondition": "lastTransitionTime message reason status type",
    "NamespaceSpec": "finalizers",
    "NamespaceStatus": "conditions*NamespaceCondition phase",
    "Node": "apiVersion kind metadata>ObjectMeta spec>NodeSpec status>NodeStatus",
    "NodeAddress": "address type",
    "NodeAffinity": (
        "preferredDuringSchedulingIgnoredDuringExecution*PreferredSchedulingTerm "
        "requiredDuringSchedulingIgnoredDuringExecution>NodeSelector"
    ),
    "NodeAllocatableResourceClaimStatus": "containers resourceClaimName resources",
    "NodeCondition": "lastHeartbeatTime lastTransitionTime message reason status type",
    "NodeConfigSource": "configMap>ConfigMapNodeConfigSource",
    "NodeConfigStatus": ("active>NodeConfigSource assigned>NodeConfigSource error lastKnownGood>NodeConfigSource"),
    "NodeDaemonEndpoints": "kubeletEndpoint>DaemonEndpoint",
    "NodeFeatures": "supplementalGroupsPolicy",
    "NodeRuntimeHandler": "features>NodeRuntimeHandlerFeatures name",
    "NodeRuntimeHandlerFeatures": "recursiveReadOnlyMounts userNamespaces",
    "NodeSelector": "nodeSelectorTerms*NodeSelectorTerm",
    "NodeSelectorRequirement": "key operator values",
    "NodeSelectorTerm": "matchExpressions*NodeSelectorRequirement matchFields*NodeSelectorRequirement",
    "NodeSpec": ("configSource>NodeConfigSource externalID podCIDR podCIDRs providerID taints*Taint unschedulable"),
    "NodeStatus": (
        "addresses*NodeAddress allocatable capacity conditions*NodeCondition config>NodeConfigStatus "
        "daemonEndpoints>NodeDaemonEndpoints declaredFeatures features>NodeFeatures images*ContainerImage "
        "nodeInfo>NodeSystemInfo phase runtimeHandlers*NodeRuntimeHandler volumesAttached*AttachedVolume "
        "volumesInUse"
    ),
    "NodeSwapStatus": "capacity",
    "NodeSystemInfo": (
        "architecture bootID containerRuntimeVersion kernelVersion kubeProxyVersion kubeletVersion machineID "
        "operatingSystem osImage swap>NodeSwapStatus systemUUID"
    ),
    "ObjectFieldSelector": "apiVersion fieldPath",
    "ObjectMeta": (
        "annotations creationTimestamp deletionGracePeriodSeconds deletionTimestamp finalizers generateName "
        "generation labels managedFields*ManagedFieldsEntry name namespace ownerReferences*OwnerReference "
        "resourceVersion selfLink uid"
    ),
    "ObjectReference": "apiVersion fieldPath kind name namespace resourceVersion uid",
    "OwnerReference": "apiVersion blockOwnerDeletion controller kind name uid",
    "PersistentVolumeClaim": (
        "apiVersion kind metadata>ObjectMeta spec>PersistentVolumeClaimSpec status>PersistentVolumeClaimStatus"
    ),
    "PersistentVolumeClaimCondition": "lastProbeTime lastTransitionTime message reason status type",
    "PersistentVolumeClaimSpec": (
        "accessModes dataSource>TypedLocalObjectReference dataSourceRef>TypedObjectReference "
        "resources>VolumeResourceRequirements selector>LabelSelector storageClassName "
        "volumeAttributesClassName volumeMode volumeName"
    ),
    "PersistentVolumeClaimStatus": (
        "accessModes allocatedResourceStatuses allocatedResources capacity "
        "conditions*PersistentVolumeClaimCondition currentVolumeAttributesClassName "
        "modifyVolumeStatus>ModifyVolumeStatus phase"
    ),
    "PersistentVolumeClaimVolumeSource": "claimName readOnly",
    "Pod": "apiVersion kind metadata>ObjectMeta spec>PodSpec status>PodStatus",
    "PodAffinity": (
        "preferredDuringSchedulingIgnoredDuringExecution*WeightedPodAffinityTerm "
        "requiredDuringSchedulingIgnoredDuringExecution*PodAffinityTerm"
    ),
    "PodAffinityTerm": (
        "labelSelector>LabelSelector matchLabelKeys mismatchLabelKeys namespaceSelector>LabelSelector "
        "namespaces topologyKey"
    ),
    "PodAntiAffinity": (
        "preferredDuringSchedulingIgnoredDuringExecution*WeightedPodAffinityTerm "
        "requiredDuringSchedulingIgnoredDuringExecution*PodAffinityTerm"
    ),
    "PodCertificateProjection": (
        "certificateChainPath credentialBundlePath keyPath keyType maxExpirationSeconds signerName userAnnotations"
    ),
    "PodCondition": "lastProbeTime lastTransitionTime message observedGeneration reason status type",
    "PodDNSConfig": "nameservers options*PodDNSConfigOption searches",
    "PodDNSConfigOption": "name value",
    "PodDisruptionBudget": (
        "apiVersion kind metadata>ObjectMeta spec>PodDisruptionBudgetSpec status>PodDisruptionBudgetStatus"
    ),
    "PodDisruptionBudgetSpec": ("maxUnavailable minAvailable selector>LabelSelector unhealthyPodEvictionPolicy"),
    "PodDisruptionBudgetStatus": (
        "conditions*Condition currentHealthy desiredHealthy disruptedPods disruptionsAllowed expectedPods "
        "observedGeneration"
    ),
    "PodExtendedResourceClaimStatus": ("requestMappings*ContainerExtendedResourceRequest resourceClaimName"),
    "PodFailurePolicy": "rules*PodFailurePolicyRule",
    "PodFailurePolicyOnExitCodesRequirement": "containerName operator values",
    "PodFailurePolicyOnPodConditionsPattern": "status type",
    "PodFailurePolicyRule": (
        "action onExitCodes>PodFailurePolicyOnExitCodesRequirement "
        "onPodConditions*PodFailurePolicyOnPodConditionsPattern"
    ),
    "PodIP": "ip",
    "PodOS": "name",
    "PodReadinessGate": "conditionType",
    "PodResourceClaim": "name resourceClaimName resourceClaimTemplateName",
    "PodResourceClaimStatus": "name resourceClaimName",
    "PodSchedulingGate": "name",
    "PodSchedulingGroup": "podGroupName",
    "PodSecurityContext": (
        "appArmorProfile>AppArmorProfile fsGroup fsGroupChangePolicy runAsGroup runAsNonRoot runAsUser "
        "seLinuxChangePolicy seLinuxOptions>SELinuxOptions seccompProfile>SeccompProfile supplementalGroups "
        "supplementalGroupsPolicy sysctls*Sysctl windowsOptions>WindowsSecurityContextOptions"
    ),
    "PodSpec": (
        "activeDeadlineSeconds affinity>Affinity automountServiceAccountToken containers*Container "
        "dnsConfig>PodDNSConfig dnsPolicy enableServiceLinks ephemeralContainers*EphemeralContainer "
        "hostAliases*HostAlias hostIPC hostNetwork hostPID hostUsers hostname hostnameOverride "
        "imagePullSecrets*LocalObjectReference initContainers*Container nodeName nodeSelector os>PodOS "
        "overhead preemptionPolicy priority priorityClassName readinessGates*PodReadinessGate "
        "resourceClaims*PodResourceClaim resources>ResourceRequirements restartPolicy runtimeClassName "
        "schedulerName schedulingGates*PodSchedulingGate schedulingGroup>PodSchedulingGroup "
        "securityContext>PodSecurityContext serviceAccount serviceAccountName setHostnameAsFQDN "
        "shareProcessNamespace subdomain terminationGracePeriodSeconds tolerations*Toleration "
        "topologySpreadConstraints*TopologySpreadConstraint volumes*Volume"
    ),
    "PodStatus": (
        "allocatedResources conditions*PodCondition containerStatuses*ContainerStatus "
        "ephemeralContainerStatuses*ContainerStatus "
        "extendedResourceClaimStatus>PodExtendedResourceClaimStatus hostIP hostIPs*HostIP "
        "initContainerStatuses*ContainerStatus message "
        "nodeAllocatableResourceClaimStatuses*NodeAllocatableResourceClaimStatus nominatedNodeName "
        "observedGeneration phase podIP podIPs*PodIP qosClass reason resize "
        "resourceClaimStatuses*PodResourceClaimStatus resources>ResourceRequirements startTime"
    ),
    "PodTemplateSpec": "metadata>ObjectMeta spec>PodSpec",
    "PortStatus": "error port protocol",
    "PreferredSchedulingTerm": "preference>NodeSelectorTerm weight",
    "PriorityClass": ("apiVersion description globalDefault kind metadata>ObjectMeta preemptionPolicy value"),
    "Probe": (
        "exec>ExecAction failureThreshold grpc>GRPCAction httpGet>HTTPGetAction initialDelaySeconds "
        "periodSeconds successThreshold tcpSocket>TCPSocketAction terminationGracePeriodSeconds "
        "timeoutSeconds"
    ),
    "ProjectedVolumeSource": "defaultMode sources*VolumeProjection",
    "ReplicaSet": "apiVersion kind metadata>ObjectMeta spec>ReplicaSetSpec status>ReplicaSetStatus",
    "ReplicaSetCondition": "lastTransitionTime message reason status type",
    "ReplicaSetSpec": "minReadySeconds replicas selector>LabelSelector template>PodTemplateSpec",
    "ReplicaSetStatus": (
        "availableReplicas conditions*ReplicaSetCondition fullyLabeledReplicas observedGeneration "
        "readyReplicas replicas terminatingReplicas"
    ),
    "ResourceClaim": "name request",
    "ResourceFieldSelector": "containerName divisor resource",
    "ResourceHealth": "health message resourceID",
    "ResourceQuota": ("apiVersion kind metadata>ObjectMeta spec>ResourceQuotaSpec status>ResourceQuotaStatus"),
    "ResourceQuotaSpec": "hard scopeSelector>ScopeSelector scopes",
    "ResourceQuotaStatus": "hard used",
    "ResourceRequirements": "claims*ResourceClaim limits requests",
    "ResourceStatus": "name resources*ResourceHealth",
    "RollingUpdateDaemonSet": "maxSurge maxUnavailable",
    "RollingUpdateDeployment": "maxSurge maxUnavailable",
    "RollingUpdateStatefulSetStrategy": "maxUnavailable partition",
    "SELinuxOptions": "level role type user",
    "ScopeSelector": "matchExpressions*ScopedResourceSelectorRequirement",
    "ScopedResourceSelectorRequirement": "operator scopeName values",
    "SeccompProfile": "localhostProfile type",
    "Secret": "apiVersion data immutable kind metadata>ObjectMeta stringData type",
    "SecretEnvSource": "name optional",
    "SecretKeySelector": "key name optional",
    "SecretProjection": "items*KeyToPath name optional",
    "SecretVolumeSource": "defaultMode items*KeyToPath optional secretName",
    "SecurityContext": (
        "allowPrivilegeEscalation appArmorProfile>AppArmorProfile capabilities>Capabilities privileged "
        "procMount readOnlyRootFilesystem runAsGroup runAsNonRoot runAsUser seLinuxOptions>SELinuxOptions "
        "seccompProfile>SeccompProfile windowsOptions>WindowsSecurityContextOptions"
    ),
    "Service": "apiVersion kind metadata>ObjectMeta spec>ServiceSpec status>ServiceStatus",
    "ServiceAccount": (
        "apiVersion automountServiceAccountToken imagePullSecrets*LocalObjectReference kind "
        "metadata>ObjectMeta secrets*ObjectReference"
    ),
    "ServiceAccountTokenProjection": "audience expirationSeconds path",
    "ServicePort": "appProtocol name nodePort port protocol targetPort",
    "ServiceSpec": (
        "allocateLoadBalancerNodePorts clusterIP clusterIPs externalIPs externalName externalTrafficPolicy "
        "healthCheckNodePort internalTrafficPolicy ipFamilies ipFamilyPolicy loadBalancerClass loadBalancerIP "
        "loadBalancerSourceRanges ports*ServicePort publishNotReadyAddresses selector sessionAffinity "
        "sessionAffinityConfig>SessionAffinityConfig trafficDistribution type"
    ),
    "ServiceStatus": "conditions*Condition loadBalancer>LoadBalancerStatus",
    "SessionAffinityConfig": "clientIP>ClientIPConfig",
    "SleepAction": "seconds",
    "StatefulSet": "apiVersion kind metadata>ObjectMeta spec>StatefulSetSpec status>StatefulSetStatus",
    "StatefulSetCondition": "lastTransitionTime message reason status type",
    "StatefulSetOrdinals": "start",
    "StatefulSetPersistentVolumeClaimRetentionPolicy": "whenDeleted whenScaled",
    "StatefulSetSpec": (
        "minReadySeconds ordinals>StatefulSetOrdinals "
        "persistentVolumeClaimRetentionPolicy>StatefulSetPersistentVolumeClaimRetentionPolicy "
        "podManagementPolicy replicas revisionHistoryLimit selector>LabelSelector serviceName "
        "template>PodTemplateSpec updateStrategy>StatefulSetUpdateStrategy "
        "volumeClaimTemplates*PersistentVolumeClaim"
    ),
    "StatefulSetStatus": (
        "availableReplicas collisionCount conditions*StatefulSetCondition currentReplicas currentRevision "
        "observedGeneration readyReplicas replicas updateRevision updatedReplicas"
    ),
    "StatefulSetUpdateStrategy": "rollingUpdate>RollingUpdateStatefulSetStrategy type",
    "SuccessPolicy": "rules*SuccessPolicyRule",
    "SuccessPolicyRule": "succeededCount succeededIndexes",
    "Sysctl": "name value",
    "TCPSocketAction": "host port",
    "Taint": "effect key timeAdded value",
    "Toleration": "effect key operator tolerationSeconds value",
    "TopologySpreadConstraint": (
        "labelSelector>LabelSelector matchLabelKeys maxSkew minDomains nodeAffinityPolicy nodeTaintsPolicy "
        "topologyKey whenUnsatisfiable"
    ),
    "TypedLocalObjectReference": "apiGroup kind name",
    "TypedObjectReference": "apiGroup kind name namespace",
    "UncountedTerminatedPods": "failed succeeded",
    "Volume": (
        "awsElasticBlockStore azureDisk azureFile cephfs cinder configMap>ConfigMapVolumeSource csi "
        "downwardAPI emptyDir>EmptyDirVolumeSource ephemeral fc flexVolume flocker gcePersistentDisk gitRepo "
        "glusterfs hostPath>HostPathVolumeSource image iscsi name nfs "
        "persistentVolumeClaim>PersistentVolumeClaimVolumeSource photonPersistentDisk portworxVolume "
        "projected>ProjectedVolumeSource quobyte rbd scaleIO secret>SecretVolumeSource storageos "
        "vsphereVolume"
    ),
    "VolumeDevice": "devicePath name",
    "VolumeMount": "mountPath mountPropagation name readOnly recursiveReadOnly subPath subPathExpr",
    "VolumeMountStatus": "mountPath name readOnly recursiveReadOnly volumeStatus>VolumeStatus",
    "VolumeProjection": (
        "clusterTrustBundle>ClusterTrustBundleProjection configMap>ConfigMapProjection "
        "downwardAPI>DownwardAPIProjection podCertificate>PodCertificateProjection secret>SecretProjection "
        "serviceAccountToken>ServiceAccountTokenProjection"
    ),
    "VolumeResourceRequirements": "limits requests",
    "VolumeStatus": "image>ImageVolumeStatus",
    "WeightedPodAffinityTerm": "podAffinityTerm>PodAffinityTerm weight",
    "WindowsSecurityContextOptions": ("gmsaCredentialSpec gmsaCredentialSpecName hostProcess runAsUserName"),
}


@cache
def fields_of_type(name: str) -> dict[str, Field]:
    """Field to (mark, type): ">" for an object, "*" for a list of objects, "" for anything else."""
    fields: dict[str, Field] = {}
    for entry in TYPES[name].split():
        for mark in (">", "*"):
            field, found, type_name = entry.partition(mark)
            if found:
                fields[field] = (mark, type_name)
                break
        else:
            fields[entry] = ("", "")
    return fields


def type_of(resource: Resource) -> str | None:
    """The type of a resource's objects, if its fields are known."""
    if resource.custom or resource.group == "events.k8s.io" or resource.kind not in TYPES:
        return None
    return resource.kind


def unknown_fields(type_name: str, value: Json, path: str = "") -> list[str]:
    """The paths of fields that the type does not have, such as `spec.template.spec.containers[0].imag`.

    Directives of strategic merge patches (`$patch`) are no fields.
    """
    found = []
    fields = fields_of_type(type_name)
    for key, item in value.items():
        known = fields.get(key)
        if known is None:
            if not key.startswith("$"):
                found.append(path + key)
            continue
        mark, sub = known
        if mark == ">" and isinstance(item, dict):
            found += unknown_fields(sub, item, f"{path}{key}.")
        elif mark == "*" and isinstance(item, list):
            for index, element in enumerate(item):
                if isinstance(element, dict):
                    found += unknown_fields(sub, element, f"{path}{key}[{index}].")
    return found


def known_fields(type_name: str, value: Json) -> Json:
    """The value without the fields that its type does not have; shares what stays the same."""
    fields = fields_of_type(type_name)
    result = value
    for key, item in value.items():
        known = fields.get(key)
        if known is None:
            result = {k: v for k, v in result.items() if k != key}
            continue
        mark, sub = known
        kept = item
        if mark == ">" and isinstance(item, dict):
            kept = known_fields(sub, item)
        elif mark == "*" and isinstance(item, list):
            kept = [known_fields(sub, e) if isinstance(e, dict) else e for e in item]
            kept = item if all(a is b for a, b in zip(kept, item, strict=True)) else kept
        if kept is not item:
            result = {**result, key: kept}
    return result
