{{- define "frappe.name" -}}
{{ .Release.Name }}-frappe
{{- end }}

{{- define "frappe.labels" -}}
app.kubernetes.io/name: frappe
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "frappe.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag }}
{{- end }}

{{/* What all containers know; arguments: root, role, health (port), room (port, or nothing). */}}
{{- define "frappe.env" -}}
- { name: POD_NAME, valueFrom: { fieldRef: { fieldPath: metadata.name } } }
- { name: BOOTSTRAP_ROLE, value: {{ .role }} }
- { name: HEALTH_PORT, value: {{ .health | quote }} }
- { name: WAITING_ROOM_PORT, value: {{ .room | default "" | quote }} }
- { name: IMAGE_REV, value: {{ .root.Values.image.tag | quote }} }
- { name: SITE, value: {{ .root.Values.site | quote }} }
- { name: APPS, value: {{ .root.Values.apps | quote }} }
- { name: DB_HOST, value: {{ .root.Values.database.host | quote }} }
- { name: DB_PORT, value: {{ .root.Values.database.port | quote }} }
- { name: REDIS_HOST, value: {{ .root.Values.redis.host | quote }} }
- { name: REDIS_CACHE_PORT, value: {{ .root.Values.redis.cachePort | quote }} }
- { name: REDIS_QUEUE_PORT, value: {{ .root.Values.redis.queuePort | quote }} }
- { name: REDIS_PASS_FILE, value: /run/secrets/site/redis_pass }
{{- if .root.Values.secrets.coordinateUrl }}
- { name: COORDINATE_URL_FILE, value: /run/secrets/site/coordinate_url }
- { name: SCHEDULER_URL_FILE, value: /run/secrets/site/coordinate_url }
{{- end }}
- { name: BOOT_TIMEOUT, value: {{ .root.Values.migration.bootTimeoutSeconds | quote }} }
- { name: STEP_TIMEOUT, value: {{ .root.Values.migration.stepTimeoutSeconds | quote }} }
- { name: STOP_POLICY, value: {{ .root.Values.migration.stopPolicy }} }
- { name: STOP_GRACE, value: {{ .root.Values.migration.stopGraceSeconds | quote }} }
{{- range $name, $value := .root.Values.extraEnv }}
- { name: {{ $name }}, value: {{ $value | quote }} }
{{- end }}
{{- end }}

{{/* Liveness is whether the process lives, and stays true for a leader in a long step; nothing else may end a pod. */}}
{{- define "frappe.liveness" -}}
livenessProbe:
  exec: { command: [frappe-bootstrap, live] }
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
{{- end }}

{{- define "frappe.container" -}}
image: {{ include "frappe.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
{{- end }}

{{- define "frappe.mounts" -}}
- { name: sites, mountPath: /home/frappe/frappe-bench/sites }
- { name: logs, mountPath: /home/frappe/frappe-bench/logs }
- { name: config, mountPath: /home/frappe/frappe-bench/config }
- { name: temporary, mountPath: /tmp }
- { name: site, mountPath: /run/secrets/site, readOnly: true }
{{- end }}

{{- define "frappe.pod" -}}
# Variables like REDIS_PORT=tcp://... of services would be taken for settings.
enableServiceLinks: false
automountServiceAccountToken: false
securityContext:
  runAsNonRoot: true
  runAsUser: 1000
  runAsGroup: 0
  fsGroup: 0
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: { type: RuntimeDefault }
{{- end }}

{{- define "frappe.volumes" -}}
- name: sites
  persistentVolumeClaim: { claimName: {{ .Values.storage.existingClaim | default (printf "%s-sites" (include "frappe.name" .)) }} }
- { name: logs, emptyDir: {} }
- { name: config, emptyDir: {} }
- { name: temporary, emptyDir: {} }
- { name: site, secret: { secretName: {{ .Values.secrets.site }}, defaultMode: 0440 } }
{{- end }}
