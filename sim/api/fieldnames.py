"""The fields of the builtin kinds and their types, so that a document is decoded as strictly as by a real API server.

`TYPES` lists the fields of each type of the Kubernetes API (v1.36). `spec>PodSpec` holds an object of that type,
`containers*Container` a list of them. After a colon stands a simple type: s string, i integer, n number, b boolean,
q quantity, x integer or string, o any object; `[` before it makes a list, `{` a map. A field without a mark may hold
anything, as do the volume sources of particular storage systems.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from sim.api.resources import Resource

Json = dict[str, Any]

TYPES: dict[str, str] = {
    "Affinity": "nodeAffinity>NodeAffinity podAffinity>PodAffinity podAntiAffinity>PodAntiAffinity",
    "AppArmorProfile": "localhostProfile:s type:s",
    "AttachedVolume": "devicePath:s name:s",
    "Capabilities": "add:[s drop:[s",
    "ClientIPConfig": "timeoutSeconds:i",
    "ClusterTrustBundleProjection": "labelSelector>LabelSelector name:s optional:b path:s signerName:s",
    "Condition": "lastTransitionTime:s message:s observedGeneration:i reason:s status:s type:s",
    "ConfigMap": "apiVersion:s binaryData:{s data:{s immutable:b kind:s metadata>ObjectMeta",
    "ConfigMapEnvSource": "name:s optional:b",
    "ConfigMapKeySelector": "key:s name:s optional:b",
    "ConfigMapNodeConfigSource": "kubeletConfigKey:s name:s namespace:s resourceVersion:s uid:s",
    "ConfigMapProjection": "items*KeyToPath name:s optional:b",
    "ConfigMapVolumeSource": "defaultMode:i items*KeyToPath name:s optional:b",
    "Container": (
        "args:[s command:[s env*EnvVar envFrom*EnvFromSource image:s imagePullPolicy:s lifecycle>Lifecycle "
        "livenessProbe>Probe name:s ports*ContainerPort readinessProbe>Probe resizePolicy*ContainerResizePolicy "
        "resources>ResourceRequirements restartPolicy:s restartPolicyRules*ContainerRestartRule "
        "securityContext>SecurityContext startupProbe>Probe stdin:b stdinOnce:b terminationMessagePath:s "
        "terminationMessagePolicy:s tty:b volumeDevices*VolumeDevice volumeMounts*VolumeMount workingDir:s"
    ),
    "ContainerExtendedResourceRequest": "containerName:s requestName:s resourceName:s",
    "ContainerImage": "names:[s sizeBytes:i",
    "ContainerPort": "containerPort:i hostIP:s hostPort:i name:s protocol:s",
    "ContainerResizePolicy": "resourceName:s restartPolicy:s",
    "ContainerRestartRule": "action:s exitCodes>ContainerRestartRuleOnExitCodes",
    "ContainerRestartRuleOnExitCodes": "operator:s values:[i",
    "ContainerState": (
        "running>ContainerStateRunning terminated>ContainerStateTerminated waiting>ContainerStateWaiting"
    ),
    "ContainerStateRunning": "startedAt:s",
    "ContainerStateTerminated": ("containerID:s exitCode:i finishedAt:s message:s reason:s signal:i startedAt:s"),
    "ContainerStateWaiting": "message:s reason:s",
    "ContainerStatus": (
        "allocatedResources:{q allocatedResourcesStatus*ResourceStatus containerID:s image:s imageID:s "
        "lastState>ContainerState name:s ready:b resources>ResourceRequirements restartCount:i started:b "
        "state>ContainerState stopSignal:s user>ContainerUser volumeMounts*VolumeMountStatus"
    ),
    "ContainerUser": "linux>LinuxContainerUser",
    "CronJob": "apiVersion:s kind:s metadata>ObjectMeta spec>CronJobSpec status>CronJobStatus",
    "CronJobSpec": (
        "concurrencyPolicy:s failedJobsHistoryLimit:i jobTemplate>JobTemplateSpec schedule:s "
        "startingDeadlineSeconds:i successfulJobsHistoryLimit:i suspend:b timeZone:s"
    ),
    "CronJobStatus": "active*ObjectReference lastScheduleTime:s lastSuccessfulTime:s",
    "DaemonEndpoint": "Port:i",
    "DaemonSet": "apiVersion:s kind:s metadata>ObjectMeta spec>DaemonSetSpec status>DaemonSetStatus",
    "DaemonSetCondition": "lastTransitionTime:s message:s reason:s status:s type:s",
    "DaemonSetSpec": (
        "minReadySeconds:i revisionHistoryLimit:i selector>LabelSelector template>PodTemplateSpec "
        "updateStrategy>DaemonSetUpdateStrategy"
    ),
    "DaemonSetStatus": (
        "collisionCount:i conditions*DaemonSetCondition currentNumberScheduled:i desiredNumberScheduled:i "
        "numberAvailable:i numberMisscheduled:i numberReady:i numberUnavailable:i observedGeneration:i "
        "updatedNumberScheduled:i"
    ),
    "DaemonSetUpdateStrategy": "rollingUpdate>RollingUpdateDaemonSet type:s",
    "Deployment": "apiVersion:s kind:s metadata>ObjectMeta spec>DeploymentSpec status>DeploymentStatus",
    "DeploymentCondition": "lastTransitionTime:s lastUpdateTime:s message:s reason:s status:s type:s",
    "DeploymentSpec": (
        "minReadySeconds:i paused:b progressDeadlineSeconds:i replicas:i revisionHistoryLimit:i "
        "selector>LabelSelector strategy>DeploymentStrategy template>PodTemplateSpec"
    ),
    "DeploymentStatus": (
        "availableReplicas:i collisionCount:i conditions*DeploymentCondition observedGeneration:i readyReplicas:i "
        "replicas:i terminatingReplicas:i unavailableReplicas:i updatedReplicas:i"
    ),
    "DeploymentStrategy": "rollingUpdate>RollingUpdateDeployment type:s",
    "DownwardAPIProjection": "items*DownwardAPIVolumeFile",
    "DownwardAPIVolumeFile": ("fieldRef>ObjectFieldSelector mode:i path:s resourceFieldRef>ResourceFieldSelector"),
    "EmptyDirVolumeSource": "medium:s sizeLimit:q",
    "EnvFromSource": "configMapRef>ConfigMapEnvSource prefix:s secretRef>SecretEnvSource",
    "EnvVar": "name:s value:s valueFrom>EnvVarSource",
    "EnvVarSource": (
        "configMapKeyRef>ConfigMapKeySelector fieldRef>ObjectFieldSelector fileKeyRef>FileKeySelector "
        "resourceFieldRef>ResourceFieldSelector secretKeyRef>SecretKeySelector"
    ),
    "EphemeralContainer": (
        "args:[s command:[s env*EnvVar envFrom*EnvFromSource image:s imagePullPolicy:s lifecycle>Lifecycle "
        "livenessProbe>Probe name:s ports*ContainerPort readinessProbe>Probe resizePolicy*ContainerResizePolicy "
        "resources>ResourceRequirements restartPolicy:s restartPolicyRules*ContainerRestartRule "
        "securityContext>SecurityContext startupProbe>Probe stdin:b stdinOnce:b targetContainerName:s "
        "terminationMessagePath:s terminationMessagePolicy:s tty:b volumeDevices*VolumeDevice "
        "volumeMounts*VolumeMount workingDir:s"
    ),
    "Event": (
        "action:s apiVersion:s count:i eventTime:s firstTimestamp:s involvedObject>ObjectReference kind:s "
        "lastTimestamp:s message:s metadata>ObjectMeta reason:s related>ObjectReference reportingComponent:s "
        "reportingInstance:s series>EventSeries source>EventSource type:s"
    ),
    "EventSeries": "count:i lastObservedTime:s",
    "EventSource": "component:s host:s",
    "ExecAction": "command:[s",
    "FileKeySelector": "key:s optional:b path:s volumeName:s",
    "GRPCAction": "port:i service:s",
    "HTTPGetAction": "host:s httpHeaders*HTTPHeader path:s port:x scheme:s",
    "HTTPHeader": "name:s value:s",
    "HostAlias": "hostnames:[s ip:s",
    "HostIP": "ip:s",
    "HostPathVolumeSource": "path:s type:s",
    "ImageVolumeStatus": "imageRef:s",
    "Job": "apiVersion:s kind:s metadata>ObjectMeta spec>JobSpec status>JobStatus",
    "JobCondition": "lastProbeTime:s lastTransitionTime:s message:s reason:s status:s type:s",
    "JobSpec": (
        "activeDeadlineSeconds:i backoffLimit:i backoffLimitPerIndex:i completionMode:s completions:i managedBy:s "
        "manualSelector:b maxFailedIndexes:i parallelism:i podFailurePolicy>PodFailurePolicy "
        "podReplacementPolicy:s selector>LabelSelector successPolicy>SuccessPolicy suspend:b "
        "template>PodTemplateSpec ttlSecondsAfterFinished:i"
    ),
    "JobStatus": (
        "active:i completedIndexes:s completionTime:s conditions*JobCondition failed:i failedIndexes:s ready:i "
        "startTime:s succeeded:i terminating:i uncountedTerminatedPods>UncountedTerminatedPods"
    ),
    "JobTemplateSpec": "metadata>ObjectMeta spec>JobSpec",
    "KeyToPath": "key:s mode:i path:s",
    "LabelSelector": "matchExpressions*LabelSelectorRequirement matchLabels:{s",
    "LabelSelectorRequirement": "key:s operator:s values:[s",
    "Lease": "apiVersion:s kind:s metadata>ObjectMeta spec>LeaseSpec",
    "LeaseSpec": (
        "acquireTime:s holderIdentity:s leaseDurationSeconds:i leaseTransitions:i preferredHolder:s renewTime:s "
        "strategy:s"
    ),
    "Lifecycle": "postStart>LifecycleHandler preStop>LifecycleHandler stopSignal:s",
    "LifecycleHandler": "exec>ExecAction httpGet>HTTPGetAction sleep>SleepAction tcpSocket>TCPSocketAction",
    "LinuxContainerUser": "gid:i supplementalGroups:[i uid:i",
    "LoadBalancerIngress": "hostname:s ip:s ipMode:s ports*PortStatus",
    "LoadBalancerStatus": "ingress*LoadBalancerIngress",
    "LocalObjectReference": "name:s",
    "ManagedFieldsEntry": "apiVersion:s fieldsType:s fieldsV1:o manager:s operation:s subresource:s time:s",
    "ModifyVolumeStatus": "status:s targetVolumeAttributesClassName:s",
    "Namespace": "apiVersion:s kind:s metadata>ObjectMeta spec>NamespaceSpec status>NamespaceStatus",
    "NamespaceCondition": "lastTransitionTime:s message:s reason:s status:s type:s",
    "NamespaceSpec": "finalizers:[s",
    "NamespaceStatus": "conditions*NamespaceCondition phase:s",
    "Node": "apiVersion:s kind:s metadata>ObjectMeta spec>NodeSpec status>NodeStatus",
    "NodeAddress": "address:s type:s",
    "NodeAffinity": (
        "preferredDuringSchedulingIgnoredDuringExecution*PreferredSchedulingTerm "
        "requiredDuringSchedulingIgnoredDuringExecution>NodeSelector"
    ),
    "NodeAllocatableResourceClaimStatus": "containers:[s resourceClaimName:s resources:{q",
    "NodeCondition": "lastHeartbeatTime:s lastTransitionTime:s message:s reason:s status:s type:s",
    "NodeConfigSource": "configMap>ConfigMapNodeConfigSource",
    "NodeConfigStatus": ("active>NodeConfigSource assigned>NodeConfigSource error:s lastKnownGood>NodeConfigSource"),
    "NodeDaemonEndpoints": "kubeletEndpoint>DaemonEndpoint",
    "NodeFeatures": "supplementalGroupsPolicy:b",
    "NodeRuntimeHandler": "features>NodeRuntimeHandlerFeatures name:s",
    "NodeRuntimeHandlerFeatures": "recursiveReadOnlyMounts:b userNamespaces:b",
    "NodeSelector": "nodeSelectorTerms*NodeSelectorTerm",
    "NodeSelectorRequirement": "key:s operator:s values:[s",
    "NodeSelectorTerm": "matchExpressions*NodeSelectorRequirement matchFields*NodeSelectorRequirement",
    "NodeSpec": (
        "configSource>NodeConfigSource externalID:s podCIDR:s podCIDRs:[s providerID:s taints*Taint unschedulable:b"
    ),
    "NodeStatus": (
        "addresses*NodeAddress allocatable:{q capacity:{q conditions*NodeCondition config>NodeConfigStatus "
        "daemonEndpoints>NodeDaemonEndpoints declaredFeatures:[s features>NodeFeatures images*ContainerImage "
        "nodeInfo>NodeSystemInfo phase:s runtimeHandlers*NodeRuntimeHandler volumesAttached*AttachedVolume "
        "volumesInUse:[s"
    ),
    "NodeSwapStatus": "capacity:i",
    "NodeSystemInfo": (
        "architecture:s bootID:s containerRuntimeVersion:s kernelVersion:s kubeProxyVersion:s kubeletVersion:s "
        "machineID:s operatingSystem:s osImage:s swap>NodeSwapStatus systemUUID:s"
    ),
    "ObjectFieldSelector": "apiVersion:s fieldPath:s",
    "ObjectMeta": (
        "annotations:{s creationTimestamp:s deletionGracePeriodSeconds:i deletionTimestamp:s finalizers:[s "
        "generateName:s generation:i labels:{s managedFields*ManagedFieldsEntry name:s namespace:s "
        "ownerReferences*OwnerReference resourceVersion:s selfLink:s uid:s"
    ),
    "ObjectReference": "apiVersion:s fieldPath:s kind:s name:s namespace:s resourceVersion:s uid:s",
    "OwnerReference": "apiVersion:s blockOwnerDeletion:b controller:b kind:s name:s uid:s",
    "PersistentVolumeClaim": (
        "apiVersion:s kind:s metadata>ObjectMeta spec>PersistentVolumeClaimSpec status>PersistentVolumeClaimStatus"
    ),
    "PersistentVolumeClaimCondition": ("lastProbeTime:s lastTransitionTime:s message:s reason:s status:s type:s"),
    "PersistentVolumeClaimSpec": (
        "accessModes:[s dataSource>TypedLocalObjectReference dataSourceRef>TypedObjectReference "
        "resources>VolumeResourceRequirements selector>LabelSelector storageClassName:s "
        "volumeAttributesClassName:s volumeMode:s volumeName:s"
    ),
    "PersistentVolumeClaimStatus": (
        "accessModes:[s allocatedResourceStatuses:{s allocatedResources:{q capacity:{q "
        "conditions*PersistentVolumeClaimCondition currentVolumeAttributesClassName:s "
        "modifyVolumeStatus>ModifyVolumeStatus phase:s"
    ),
    "PersistentVolumeClaimVolumeSource": "claimName:s readOnly:b",
    "Pod": "apiVersion:s kind:s metadata>ObjectMeta spec>PodSpec status>PodStatus",
    "PodAffinity": (
        "preferredDuringSchedulingIgnoredDuringExecution*WeightedPodAffinityTerm "
        "requiredDuringSchedulingIgnoredDuringExecution*PodAffinityTerm"
    ),
    "PodAffinityTerm": (
        "labelSelector>LabelSelector matchLabelKeys:[s mismatchLabelKeys:[s namespaceSelector>LabelSelector "
        "namespaces:[s topologyKey:s"
    ),
    "PodAntiAffinity": (
        "preferredDuringSchedulingIgnoredDuringExecution*WeightedPodAffinityTerm "
        "requiredDuringSchedulingIgnoredDuringExecution*PodAffinityTerm"
    ),
    "PodCertificateProjection": (
        "certificateChainPath:s credentialBundlePath:s keyPath:s keyType:s maxExpirationSeconds:i signerName:s "
        "userAnnotations:{s"
    ),
    "PodCondition": ("lastProbeTime:s lastTransitionTime:s message:s observedGeneration:i reason:s status:s type:s"),
    "PodDNSConfig": "nameservers:[s options*PodDNSConfigOption searches:[s",
    "PodDNSConfigOption": "name:s value:s",
    "PodDisruptionBudget": (
        "apiVersion:s kind:s metadata>ObjectMeta spec>PodDisruptionBudgetSpec status>PodDisruptionBudgetStatus"
    ),
    "PodDisruptionBudgetSpec": ("maxUnavailable:x minAvailable:x selector>LabelSelector unhealthyPodEvictionPolicy:s"),
    "PodDisruptionBudgetStatus": (
        "conditions*Condition currentHealthy:i desiredHealthy:i disruptedPods:{s disruptionsAllowed:i "
        "expectedPods:i observedGeneration:i"
    ),
    "PodExtendedResourceClaimStatus": "requestMappings*ContainerExtendedResourceRequest resourceClaimName:s",
    "PodFailurePolicy": "rules*PodFailurePolicyRule",
    "PodFailurePolicyOnExitCodesRequirement": "containerName:s operator:s values:[i",
    "PodFailurePolicyOnPodConditionsPattern": "status:s type:s",
    "PodFailurePolicyRule": (
        "action:s onExitCodes>PodFailurePolicyOnExitCodesRequirement "
        "onPodConditions*PodFailurePolicyOnPodConditionsPattern"
    ),
    "PodIP": "ip:s",
    "PodOS": "name:s",
    "PodReadinessGate": "conditionType:s",
    "PodResourceClaim": "name:s resourceClaimName:s resourceClaimTemplateName:s",
    "PodResourceClaimStatus": "name:s resourceClaimName:s",
    "PodSchedulingGate": "name:s",
    "PodSchedulingGroup": "podGroupName:s",
    "PodSecurityContext": (
        "appArmorProfile>AppArmorProfile fsGroup:i fsGroupChangePolicy:s runAsGroup:i runAsNonRoot:b runAsUser:i "
        "seLinuxChangePolicy:s seLinuxOptions>SELinuxOptions seccompProfile>SeccompProfile supplementalGroups:[i "
        "supplementalGroupsPolicy:s sysctls*Sysctl windowsOptions>WindowsSecurityContextOptions"
    ),
    "PodSpec": (
        "activeDeadlineSeconds:i affinity>Affinity automountServiceAccountToken:b containers*Container "
        "dnsConfig>PodDNSConfig dnsPolicy:s enableServiceLinks:b ephemeralContainers*EphemeralContainer "
        "hostAliases*HostAlias hostIPC:b hostNetwork:b hostPID:b hostUsers:b hostname:s hostnameOverride:s "
        "imagePullSecrets*LocalObjectReference initContainers*Container nodeName:s nodeSelector:{s os>PodOS "
        "overhead:{q preemptionPolicy:s priority:i priorityClassName:s readinessGates*PodReadinessGate "
        "resourceClaims*PodResourceClaim resources>ResourceRequirements restartPolicy:s runtimeClassName:s "
        "schedulerName:s schedulingGates*PodSchedulingGate schedulingGroup>PodSchedulingGroup "
        "securityContext>PodSecurityContext serviceAccount:s serviceAccountName:s setHostnameAsFQDN:b "
        "shareProcessNamespace:b subdomain:s terminationGracePeriodSeconds:i tolerations*Toleration "
        "topologySpreadConstraints*TopologySpreadConstraint volumes*Volume"
    ),
    "PodStatus": (
        "allocatedResources:{q conditions*PodCondition containerStatuses*ContainerStatus "
        "ephemeralContainerStatuses*ContainerStatus extendedResourceClaimStatus>PodExtendedResourceClaimStatus "
        "hostIP:s hostIPs*HostIP initContainerStatuses*ContainerStatus message:s "
        "nodeAllocatableResourceClaimStatuses*NodeAllocatableResourceClaimStatus nominatedNodeName:s "
        "observedGeneration:i phase:s podIP:s podIPs*PodIP qosClass:s reason:s resize:s "
        "resourceClaimStatuses*PodResourceClaimStatus resources>ResourceRequirements startTime:s"
    ),
    "PodTemplateSpec": "metadata>ObjectMeta spec>PodSpec",
    "PortStatus": "error:s port:i protocol:s",
    "PreferredSchedulingTerm": "preference>NodeSelectorTerm weight:i",
    "PriorityClass": (
        "apiVersion:s description:s globalDefault:b kind:s metadata>ObjectMeta preemptionPolicy:s value:i"
    ),
    "Probe": (
        "exec>ExecAction failureThreshold:i grpc>GRPCAction httpGet>HTTPGetAction initialDelaySeconds:i "
        "periodSeconds:i successThreshold:i tcpSocket>TCPSocketAction terminationGracePeriodSeconds:i "
        "timeoutSeconds:i"
    ),
    "ProjectedVolumeSource": "defaultMode:i sources*VolumeProjection",
    "ReplicaSet": "apiVersion:s kind:s metadata>ObjectMeta spec>ReplicaSetSpec status>ReplicaSetStatus",
    "ReplicaSetCondition": "lastTransitionTime:s message:s reason:s status:s type:s",
    "ReplicaSetSpec": "minReadySeconds:i replicas:i selector>LabelSelector template>PodTemplateSpec",
    "ReplicaSetStatus": (
        "availableReplicas:i conditions*ReplicaSetCondition fullyLabeledReplicas:i observedGeneration:i "
        "readyReplicas:i replicas:i terminatingReplicas:i"
    ),
    "ResourceClaim": "name:s request:s",
    "ResourceFieldSelector": "containerName:s divisor:q resource:s",
    "ResourceHealth": "health:s message:s resourceID:s",
    "ResourceQuota": ("apiVersion:s kind:s metadata>ObjectMeta spec>ResourceQuotaSpec status>ResourceQuotaStatus"),
    "ResourceQuotaSpec": "hard:{q scopeSelector>ScopeSelector scopes:[s",
    "ResourceQuotaStatus": "hard:{q used:{q",
    "ResourceRequirements": "claims*ResourceClaim limits:{q requests:{q",
    "ResourceStatus": "name:s resources*ResourceHealth",
    "RollingUpdateDaemonSet": "maxSurge:x maxUnavailable:x",
    "RollingUpdateDeployment": "maxSurge:x maxUnavailable:x",
    "RollingUpdateStatefulSetStrategy": "maxUnavailable:x partition:i",
    "SELinuxOptions": "level:s role:s type:s user:s",
    "ScopeSelector": "matchExpressions*ScopedResourceSelectorRequirement",
    "ScopedResourceSelectorRequirement": "operator:s scopeName:s values:[s",
    "SeccompProfile": "localhostProfile:s type:s",
    "Secret": "apiVersion:s data:{s immutable:b kind:s metadata>ObjectMeta stringData:{s type:s",
    "SecretEnvSource": "name:s optional:b",
    "SecretKeySelector": "key:s name:s optional:b",
    "SecretProjection": "items*KeyToPath name:s optional:b",
    "SecretVolumeSource": "defaultMode:i items*KeyToPath optional:b secretName:s",
    "SecurityContext": (
        "allowPrivilegeEscalation:b appArmorProfile>AppArmorProfile capabilities>Capabilities privileged:b "
        "procMount:s readOnlyRootFilesystem:b runAsGroup:i runAsNonRoot:b runAsUser:i "
        "seLinuxOptions>SELinuxOptions seccompProfile>SeccompProfile windowsOptions>WindowsSecurityContextOptions"
    ),
    "Service": "apiVersion:s kind:s metadata>ObjectMeta spec>ServiceSpec status>ServiceStatus",
    "ServiceAccount": (
        "apiVersion:s automountServiceAccountToken:b imagePullSecrets*LocalObjectReference kind:s "
        "metadata>ObjectMeta secrets*ObjectReference"
    ),
    "ServiceAccountTokenProjection": "audience:s expirationSeconds:i path:s",
    "ServicePort": "appProtocol:s name:s nodePort:i port:i protocol:s targetPort:x",
    "ServiceSpec": (
        "allocateLoadBalancerNodePorts:b clusterIP:s clusterIPs:[s externalIPs:[s externalName:s "
        "externalTrafficPolicy:s healthCheckNodePort:i internalTrafficPolicy:s ipFamilies:[s ipFamilyPolicy:s "
        "loadBalancerClass:s loadBalancerIP:s loadBalancerSourceRanges:[s ports*ServicePort "
        "publishNotReadyAddresses:b selector:{s sessionAffinity:s sessionAffinityConfig>SessionAffinityConfig "
        "trafficDistribution:s type:s"
    ),
    "ServiceStatus": "conditions*Condition loadBalancer>LoadBalancerStatus",
    "SessionAffinityConfig": "clientIP>ClientIPConfig",
    "SleepAction": "seconds:i",
    "StatefulSet": "apiVersion:s kind:s metadata>ObjectMeta spec>StatefulSetSpec status>StatefulSetStatus",
    "StatefulSetCondition": "lastTransitionTime:s message:s reason:s status:s type:s",
    "StatefulSetOrdinals": "start:i",
    "StatefulSetPersistentVolumeClaimRetentionPolicy": "whenDeleted:s whenScaled:s",
    "StatefulSetSpec": (
        "minReadySeconds:i ordinals>StatefulSetOrdinals "
        "persistentVolumeClaimRetentionPolicy>StatefulSetPersistentVolumeClaimRetentionPolicy "
        "podManagementPolicy:s replicas:i revisionHistoryLimit:i selector>LabelSelector serviceName:s "
        "template>PodTemplateSpec updateStrategy>StatefulSetUpdateStrategy "
        "volumeClaimTemplates*PersistentVolumeClaim"
    ),
    "StatefulSetStatus": (
        "availableReplicas:i collisionCount:i conditions*StatefulSetCondition currentReplicas:i currentRevision:s "
        "observedGeneration:i readyReplicas:i replicas:i updateRevision:s updatedReplicas:i"
    ),
    "StatefulSetUpdateStrategy": "rollingUpdate>RollingUpdateStatefulSetStrategy type:s",
    "SuccessPolicy": "rules*SuccessPolicyRule",
    "SuccessPolicyRule": "succeededCount:i succeededIndexes:s",
    "Sysctl": "name:s value:s",
    "TCPSocketAction": "host:s port:x",
    "Taint": "effect:s key:s timeAdded:s value:s",
    "Toleration": "effect:s key:s operator:s tolerationSeconds:i value:s",
    "TopologySpreadConstraint": (
        "labelSelector>LabelSelector matchLabelKeys:[s maxSkew:i minDomains:i nodeAffinityPolicy:s "
        "nodeTaintsPolicy:s topologyKey:s whenUnsatisfiable:s"
    ),
    "TypedLocalObjectReference": "apiGroup:s kind:s name:s",
    "TypedObjectReference": "apiGroup:s kind:s name:s namespace:s",
    "UncountedTerminatedPods": "failed:[s succeeded:[s",
    "Volume": (
        "awsElasticBlockStore:o azureDisk:o azureFile:o cephfs:o cinder:o configMap>ConfigMapVolumeSource csi:o "
        "downwardAPI:o emptyDir>EmptyDirVolumeSource ephemeral:o fc:o flexVolume:o flocker:o gcePersistentDisk:o "
        "gitRepo:o glusterfs:o hostPath>HostPathVolumeSource image:o iscsi:o name:s nfs:o "
        "persistentVolumeClaim>PersistentVolumeClaimVolumeSource photonPersistentDisk:o portworxVolume:o "
        "projected>ProjectedVolumeSource quobyte:o rbd:o scaleIO:o secret>SecretVolumeSource storageos:o "
        "vsphereVolume:o"
    ),
    "VolumeDevice": "devicePath:s name:s",
    "VolumeMount": ("mountPath:s mountPropagation:s name:s readOnly:b recursiveReadOnly:s subPath:s subPathExpr:s"),
    "VolumeMountStatus": "mountPath:s name:s readOnly:b recursiveReadOnly:s volumeStatus>VolumeStatus",
    "VolumeProjection": (
        "clusterTrustBundle>ClusterTrustBundleProjection configMap>ConfigMapProjection "
        "downwardAPI>DownwardAPIProjection podCertificate>PodCertificateProjection secret>SecretProjection "
        "serviceAccountToken>ServiceAccountTokenProjection"
    ),
    "VolumeResourceRequirements": "limits:{q requests:{q",
    "VolumeStatus": "image>ImageVolumeStatus",
    "WeightedPodAffinityTerm": "podAffinityTerm>PodAffinityTerm weight:i",
    "WindowsSecurityContextOptions": ("gmsaCredentialSpec:s gmsaCredentialSpecName:s hostProcess:b runAsUserName:s"),
}


TYPES |= {
    "CustomResourceDefinition": "apiVersion:s kind:s metadata>ObjectMeta spec>CustomResourceDefinitionSpec status:o",
    "CustomResourceDefinitionSpec": (
        "conversion:o group:s names>CustomResourceDefinitionNames preserveUnknownFields:b scope:s "
        "versions*CustomResourceDefinitionVersion"
    ),
    "CustomResourceDefinitionNames": "categories:[s kind:s listKind:s plural:s shortNames:[s singular:s",
    "CustomResourceDefinitionVersion": (
        "additionalPrinterColumns*CustomResourceColumnDefinition deprecated:b deprecationWarning:s name:s "
        "schema>CustomResourceValidation selectableFields:[o served:b storage:b "
        "subresources>CustomResourceSubresources"
    ),
    "CustomResourceColumnDefinition": "description:s format:s jsonPath:s name:s priority:i type:s",
    "CustomResourceSubresources": "scale>CustomResourceSubresourceScale status:o",
    "CustomResourceSubresourceScale": "labelSelectorPath:s specReplicasPath:s statusReplicasPath:s",
    "CustomResourceValidation": "openAPIV3Schema:o",
}


class Field(NamedTuple):
    """A field's shape (">" object, "*" list of objects, ":" simple, "[" list, "{" map, "" anything) and type."""

    shape: str
    type: str


class WrongType(NamedTuple):
    """A value that its field cannot hold."""

    path: str
    wanted: str
    value: Any


@cache
def fields_of_type(name: str) -> dict[str, Field]:
    """The fields of a type by name."""
    fields = {}
    for entry in TYPES[name].split():
        at = next((i for i, char in enumerate(entry) if char in ">*:"), len(entry))
        field, mark, kind = entry[:at], entry[at : at + 1], entry[at + 1 :]
        if mark == ":" and kind[:1] in {"[", "{"}:
            mark, kind = kind[0], kind[1:]
        fields[field] = Field(mark, kind)
    return fields


def type_of(resource: Resource) -> str | None:
    """The type of a resource's objects, if its fields are known."""
    if resource.custom or resource.group == "events.k8s.io" or resource.kind not in TYPES:
        return None
    return resource.kind


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_SIMPLE: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "s": ("string", lambda value: isinstance(value, str)),
    "i": ("int32", _is_integer),
    "n": ("float64", lambda value: isinstance(value, (int, float)) and not isinstance(value, bool)),
    "b": ("bool", lambda value: isinstance(value, bool)),
    "q": ("resource.Quantity", lambda value: isinstance(value, (str, int, float)) and not isinstance(value, bool)),
    "x": ("intstr.IntOrString", lambda value: isinstance(value, str) or _is_integer(value)),
    "o": ("object", lambda value: isinstance(value, dict)),
    "": ("anything", lambda _value: True),
}


# What null means in a list: the empty value of the type, for objects `{}`.
_EMPTY: dict[str, Any] = {"s": "", "i": 0, "n": 0.0, "b": False, "q": "0", "x": 0}


def decode(type_name: str, value: Json, wrong: list[WrongType], path: str = "") -> Json:
    """The value without the fields that its type does not have; shares what stays the same.

    Values of the wrong type are kept and added to `wrong`. Null is no value, and never wrong.
    """
    fields = fields_of_type(type_name)
    result = value
    for key, item in value.items():
        field = fields.get(key)
        if field is None:
            result = {k: v for k, v in result.items() if k != key}
            continue
        kept = _decode_field(field, item, wrong, path + key)
        if kept is not item:
            result = {**result, key: kept}
    return result


def _decode_field(field: Field, item: Any, wrong: list[WrongType], path: str) -> Any:
    shape, kind = field
    if item is None or shape == "":
        return item
    if shape == ">":
        if isinstance(item, dict):
            return decode(kind, item, wrong, path + ".")
        wrong.append(WrongType(path, kind, item))
    elif shape in {"*", "["}:
        if not isinstance(item, list):
            wrong.append(WrongType(path, f"[]{kind if shape == '*' else _SIMPLE[kind][0]}", item))
            return item
        element = Field(">" if shape == "*" else ":", kind)
        kept = [
            _EMPTY.get(kind, {}) if part is None else _decode_field(element, part, wrong, f"{path}[{i}]")
            for i, part in enumerate(item)
        ]
        return item if all(a is b for a, b in zip(kept, item, strict=True)) else kept
    elif shape == "{":
        if not isinstance(item, dict):
            wrong.append(WrongType(path, f"map[string]{_SIMPLE[kind][0]}", item))
            return item
        for name, part in item.items():
            _decode_field(Field(":", kind), part, wrong, f"{path}.{name}")
    else:
        wanted, fits = _SIMPLE[kind]
        if not fits(item):
            wrong.append(WrongType(path, wanted, item))
    return item


def unknown_fields(type_name: str, value: Json, path: str = "") -> list[str]:
    """The paths of fields that the type does not have, such as `spec.template.spec.containers[0].imag`.

    Directives of strategic merge patches (`$patch`) are no fields.
    """
    found = []
    fields = fields_of_type(type_name)
    for key, item in value.items():
        field = fields.get(key)
        if field is None:
            if not key.startswith("$"):
                found.append(path + key)
        elif field.shape == ">" and isinstance(item, dict):
            found += unknown_fields(field.type, item, f"{path}{key}.")
        elif field.shape == "*" and isinstance(item, list):
            for index, element in enumerate(item):
                if isinstance(element, dict):
                    found += unknown_fields(field.type, element, f"{path}{key}[{index}].")
    return found
