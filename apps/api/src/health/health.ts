import { ApiProperty } from '@nestjs/swagger';

const INDICATORS = {
  type: 'object' as const,
  additionalProperties: {
    type: 'object',
    required: ['status'],
    properties: { status: { type: 'string', enum: ['up', 'down'] } },
  },
};

/** What terminus answers, for the documentation only. */
export class Health {
  @ApiProperty({ enum: ['ok', 'error'] })
  readonly status!: string;

  @ApiProperty({ ...INDICATORS, description: 'What is well' })
  readonly info!: object;

  @ApiProperty({ ...INDICATORS, description: 'What is not' })
  readonly error!: object;

  @ApiProperty({
    ...INDICATORS,
    description: 'Both',
    example: { replica: { status: 'up' }, store: { status: 'up' } },
  })
  readonly details!: object;
}
