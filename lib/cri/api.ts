/** The messages of CRI v1 under a short name; generated from api/cri/v1/api.proto by hack/codegen. */
import { runtime } from '#gen/cri/v1/api.js';

export import v1 = runtime.v1;
