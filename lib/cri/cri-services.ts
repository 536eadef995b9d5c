import { imageService, runtimeService } from '#gen/cri/v1/services.js';

import { containerStatus } from './container-status.js';
import { createContainer } from './create-container.js';
import { execSync } from './exec-sync.js';
import { imageFsInfo } from './image-fs-info.js';
import { imageStatus } from './image-status.js';
import { listContainers } from './list-containers.js';
import { listImages } from './list-images.js';
import { listPodSandbox } from './list-pod-sandbox.js';
import type { CriParts } from './parts.js';
import { podSandboxStatus } from './pod-sandbox-status.js';
import { pullImage } from './pull-image.js';
import { removeContainer } from './remove-container.js';
import { removeImage } from './remove-image.js';
import { removePodSandbox } from './remove-pod-sandbox.js';
import { reopenContainerLog } from './reopen-container-log.js';
import { runPodSandbox } from './run-pod-sandbox.js';
import { runtimeConfig } from './runtime-config.js';
import type { ServedService } from './server.js';
import { implement } from './service.js';
import { startContainer } from './start-container.js';
import { status } from './status.js';
import { stopContainer } from './stop-container.js';
import { stopPodSandbox } from './stop-pod-sandbox.js';
import { updateContainerResources } from './update-container-resources.js';
import { updatePodSandboxResources } from './update-pod-sandbox-resources.js';
import { updateRuntimeConfig } from './update-runtime-config.js';
import { version } from './version.js';

/** Both services of CRI v1, for one socket: the kubelet looks for the image service where the other one is. */
export function criServices(parts: CriParts): ServedService[] {
  const runtime = implement(
    runtimeService,
    {
      version,
      status,
      runtimeConfig,
      updateRuntimeConfig,
      runPodSandbox,
      stopPodSandbox,
      removePodSandbox,
      podSandboxStatus,
      updatePodSandboxResources,
      listPodSandbox,
      createContainer,
      startContainer,
      stopContainer,
      removeContainer,
      listContainers,
      containerStatus,
      updateContainerResources,
      execSync,
      reopenContainerLog,
    },
    parts,
  );
  const image = implement(
    imageService,
    { listImages, imageStatus, pullImage, removeImage, imageFsInfo },
    parts,
  );
  return [runtime, image];
}
