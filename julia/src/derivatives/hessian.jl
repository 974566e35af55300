function hessian_buffers(worker::Worker{T}, net::Net{T}) where {T}
    worker.buffers === nothing &&
        (worker.buffers = unknown(single_hidden_layer(net) ? SingleLayerBuffers : BlockBuffers)(net))
    return worker.buffers
end

"Sum up the shares of Hessians in `H`, as long as one thread works, and not in a matrix of the net's own."
lend_matrix!(net::Net{T}, H::Matrix{T}) where {T} = (net.crew.workers[1].sums[1].matrix = H; nothing)

"Leave the memory that Hessians of the net worked in to the collector; the next Hessian asks for it anew."
function free_buffers!(net::Net)
    for worker in net.crew.workers
        worker.buffers = nothing
        foreach(sums -> sums.matrix = nothing, worker.sums)
    end
    return nothing
end

"`Z` holds a block's weighted derivatives, a column for each weight of a few units of one layer."
struct BlockBuffers{T} <: HessianBuffers{T}
    Z::Matrix{T}
end
BlockBuffers(net::Net{T}) where {T} =
    BlockBuffers{T}(zeros(T, first(net.blocks).n,
                          columns_for(maximum(l.fan_in * units_at_once(l) for l in net.layers))))

"So many that their columns, 2 kB each, stay in the second-level cache."
units_at_once(l::Layer) = clamp(div(128, l.fan_in), 1, l.width)

"""
    hessian!(H, net, θ) -> H

Overwrite `H` (P×P) with ∇²L(θ): exact, symmetric to the last bit (one triangle is computed and mirrored).
"""
function hessian!(H::Matrix{T}, net::Net{T}, θ::Vector{T}) where {T}
    check_params(net, θ)
    size(H) == (net.n_params, net.n_params) ||
        throw(DimensionMismatch("H is $(size(H)), this net has $(net.n_params) parameters"))
    check_data(net)
    prepare!(net.objective, net, θ)
    net.crew.total.matrix = H
    sum_shares!(HessianPass(), net, θ)
    net.crew.total.matrix = nothing
    add_outer_terms!(H, net.objective, net, θ)
    add_penalty_hessian!(H, net.regulariser, θ)
    return mirror!(H)
end

# Lower triangles.
function make_arrays!(sums::Sums{T}, ::MatrixPass, net) where {T}
    sums.matrix === nothing && (sums.matrix = zeros(T, net.n_params, net.n_params))
    return nothing
end
function add_sums!(::MatrixPass, total::Sums{T}, sums::Sums{T}) where {T}
    H, A = total.matrix::Matrix{T}, sums.matrix::Matrix{T}
    @inbounds for j in 1:size(H, 2)
        @simd for i in j:size(H, 1)
            H[i, j] += A[i, j]
        end
    end
    return nothing
end

sum_samples!(pass::MatrixPass, sums::Sums{T}, worker::Worker{T}, net::Net{T}, θ::Vector{T}, v,
             objective::Loss) where {T} =
    unknown(sum_matrices!)(pass, sums.matrix::Matrix{T}, hessian_buffers(worker, net), worker, net, θ,
                           objective)::Bool

function sum_matrices!(::HessianPass, H::Matrix{T}, buffers::BlockBuffers{T}, worker::Worker{T}, net::Net{T},
                       θ::Vector{T}, objective::Loss) where {T}
    scale = one(T) / net.n_samples
    fill!(H, 0)
    for b in worker.blocks
        beat(worker, net) || return false
        block = net.blocks[b]
        second_order_pass!(worker.workspace, net, θ, block, objective, scale)
        add_blocks!(H, buffers, worker.workspace, net, θ, block, objective, scale)
    end
    return true
end

"""
    gauss_newton(net, θ) -> G
    gauss_newton!(G, net, θ) -> G

The Gauss–Newton matrix (P×P) of the data term: Σ Jᵀ (∂²ℓ/∂f²) J over samples, without the curvature of the network.
"""
gauss_newton(net::Net{T}, θ::Vector{T}) where {T} = gauss_newton!(zeros(T, net.n_params, net.n_params), net, θ)

function gauss_newton!(G::Matrix{T}, net::Net{T}, θ::Vector{T}) where {T}
    check_params(net, θ)
    size(G) == (net.n_params, net.n_params) ||
        throw(DimensionMismatch("G is $(size(G)), this net has $(net.n_params) parameters"))
    check_data(net)
    prepare!(net.objective, net, θ)
    net.crew.total.matrix = G
    sum_shares!(GaussNewtonPass(), net, θ)
    net.crew.total.matrix = nothing
    return mirror!(add_outer_terms!(G, net.objective, net, θ))
end

function sum_matrices!(::GaussNewtonPass, G::Matrix{T}, buffers::BlockBuffers{T}, worker::Worker{T}, net::Net{T},
                       θ::Vector{T}, objective::Loss) where {T}
    ws, scale = worker.workspace, one(T) / net.n_samples
    fill!(G, 0)
    for b in worker.blocks
        beat(worker, net) || return false
        second_order_pass!(ws, net, θ, net.blocks[b], objective, scale)
        for l in eachindex(net.layers)                 # a network without curvature
            fill!(ws.S[l], 0)
            fill!(ws.Δ[l], 0)
            straighten_chains!(ws, l)
        end
        add_blocks!(G, buffers, ws, net, θ, net.blocks[b], objective, scale)
    end
    return true
end

"""
    hessian_blocks(net, θ) -> [H₁, H₂, …]

The diagonal blocks of ∇²L(θ) that belong to one layer each, without the rest of the Hessian.
"""
function hessian_blocks(net::Net{T}, θ::Vector{T}) where {T}
    check_params(net, θ)
    check_data(net)
    prepare!(net.objective, net, θ)
    buffers, ws, layers = BlockBuffers(net), net.crew.workers[1].workspace, net.layers
    Hs = [zeros(T, n_params(l), n_params(l)) for l in layers]
    scale = one(T) / net.n_samples
    for block in net.blocks
        heartbeat(net.monitor)
        second_order_pass!(ws, net, θ, block, net.objective, scale)
        for l in eachindex(layers), j in 1:layers[l].width
            unit_tangent!(ws, net, θ, block, net.objective, scale, l, j)
            add_block!(Hs[l], layers[l].offset, buffers, ws, layers, block, l, j, l)
        end
    end
    for (l, H) in enumerate(Hs)
        add_outer_terms!(H, net.objective, net, θ, layers[l].offset)
        add_penalty_block!(H, net.regulariser, θ, layers[l].offset)
        mirror!(H)
    end
    return Hs
end

"""
    jacobian(net, θ) -> J

Derivatives of the outputs on the net's data by the parameters, O × N × P: before the softmax where there is one.
"""
function jacobian(net::Net{T}, θ::Vector{T}) where {T}
    check_params(net, θ)
    check_data(net)
    ws, layers, O = net.crew.workers[1].workspace, net.layers, n_outputs(net)
    J = zeros(T, O, net.n_samples, net.n_params)
    first_sample = 0
    for block in net.blocks
        heartbeat(net.monitor)
        n = block.n
        samples = min(n, net.n_samples - first_sample)
        forward!(ws, net, θ, block, 1)
        for o in 1:O
            fill!(last(ws.Δ), 0)
            view(last(ws.Δ), 1:n, o) .= view(last(ws.D), 1:n, o)
            for l in length(layers):-1:1
                l < length(layers) && hadamard!(ws.Δ[l], ws.D[l], ws.Δ[l], n, layers[l].width)
                pull_chains!(ws.Δ[l], ws, layers[l], l, n)
                A, Δ, layer = layer_input(ws, block, l), ws.Δ[l], layers[l]
                @inbounds for j in 1:layer.width
                    for i in 1:layer.fan_in, r in 1:samples
                        J[o, first_sample+r, layer.offset+(j-1)*layer.fan_in+i] = Δ[r, j] * A[r, i]
                    end
                    layer.bias && for r in 1:samples
                        J[o, first_sample+r, bias_offset(layer)+j] = Δ[r, j]
                    end
                end
                l > 1 && pullback!(ws.Δ[l-1], ws.Δ[l], θ, layer, n)
            end
        end
        first_sample += samples
    end
    return J
end

"""
    tangent_kernel(net, θ) -> K

The neural tangent kernel J Jᵀ on the net's data, (O N) × (O N), outputs of one sample next to each other (Jacot,
Gabriel and Hongler, arXiv 1806.07572).
"""
function tangent_kernel(net::AbstractNet, θ)
    J = reshape(jacobian(net, θ), :, n_params(net))
    return J * J'
end

"""
    hessian(net, θ) -> ∇²L(θ)
"""
hessian(net::AbstractNet, θ) = hessian!(similar(θ, length(θ), length(θ)), net, θ)

# Any depth. Perturb the pre-activation of unit j in layer l by one, for every sample: Ḣ, Ȧ follow forwards and
# Δ̇ backwards as in a Hessian-vector product. As ∂h_l[j]/∂W_l[j, i] = a_{l-1}[i],
#     ∂²ℓ/∂W_m[p, q] ∂W_l[j, i] = (Δ̇_m[p] a_{m-1}[q] + Δ_m[p] Ȧ_{m-1}[q]) a_{l-1}[i],      m >= l,
# which summed over samples is a matrix product. Only pairs with m > l, or m = l and p >= j, are computed.

"Add every block of the lower triangle for one block of samples."
function add_blocks!(H, buffers::BlockBuffers{T}, ws::Workspace{T}, net, θ, block::Block{T}, objective::Loss,
                     scale::T) where {T}
    layers = net.layers
    for l in eachindex(layers), j in 1:layers[l].width
        unit_tangent!(ws, net, θ, block, objective, scale, l, j)
        for m in l:length(layers)
            add_block!(H, 0, buffers, ws, layers, block, l, j, m)
        end
    end
    return H
end

function unit_tangent!(ws::Workspace{T}, net, θ, block::Block{T}, objective::Loss, scale::T, l::Int, j::Int) where {T}
    layers = net.layers
    n, L = block.n, length(layers)
    chained = in_chain(layers[l].chains, j)          # then outputs of several units change
    if chained
        fill!(ws.Ḣ[l], 0)
        fill!(ws.Ȧ[l], 0)
        @inbounds for r in 1:n
            ws.Ḣ[l][r, j] = ws.Ȧ[l][r, j] = one(T)
        end
        push_chains!(ws.Ȧ[l], ws, layers[l], l, n)
    end
    for m in l+1:L
        k = layers[m].width
        if m == l + 1 && !chained
            @inbounds for p in 1:k
                w = θ[layers[m].offset+(p-1)*layers[m].fan_in+j]
                @lanes r n ws.Ḣ[m][r, p] = w * ws.D[l][r, j]
            end
        else
            linear_dot!(ws.Ḣ[m], ws.Ȧ[m-1], θ, layers[m], n)
        end
        hadamard!(ws.Ȧ[m], ws.D[m], ws.Ḣ[m], n, k)
        push_chains!(ws.Ȧ[m], ws, layers[m], m, n)
    end
    if l == L
        fill!(ws.Ȧ[L], 0)
        @inbounds @lanes r n ws.Ȧ[L][r, j] = ws.D[L][r, j]
    end
    loss_dot!(objective, ws.Δ̇[L], ws, ws.Ȧ[L], block, scale)
    for m in L:-1:l+1
        for p in 1:layers[m].width
            chain_dot!(ws.Δ̇[m], ws.D[m], ws.S[m], ws.E[m], ws.Ḣ[m], p, n)
        end
        pull_chains!(ws.Δ̇[m], ws, layers[m], m, n)
        bend_chains!(ws.Δ̇[m], ws.E[m], ws.Ḣ[m], ws, layers[m], m, n)
        pullback!(ws.Δ̇[m-1], ws.Δ̇[m], θ, layers[m], n)
    end
    Δ̇ = hadamard!(ws.Δ̇[l], ws.D[l], ws.Δ̇[l], n, layers[l].width)
    pull_chains!(Δ̇, ws, layers[l], l, n)
    chained && bend_chains!(Δ̇, ws.E[l], ws.Ḣ[l], ws, layers[l], l, n)
    @inbounds @lanes r n Δ̇[r, j] = muladd(ws.S[l][r, j], ws.E[l][r, j], Δ̇[r, j])
    return nothing
end

"Add the rows of layer m ≥ l, columns of unit j of layer l; `H` begins after `shift` parameters."
function add_block!(H::Matrix{T}, shift::Int, buffers::BlockBuffers{T}, ws::Workspace{T}, layers, block::Block{T},
                    l::Int, j::Int, m::Int) where {T}
    n, lower, upper, Δ̇, B, ld = block.n, layers[l], layers[m], ws.Δ̇[m], layer_input(ws, block, l), size(H, 1)
    first = m == l ? j : 1
    inputs = lower.offset - shift + (j - 1) * lower.fan_in            # columns before those of the weights
    part(rows, columns) = Panel(H, rows + 1 + ld * columns, ld)       # of H, behind so many rows and columns
    bias, ones = bias_offset(lower) - shift + j - 1, lower.fan_in + 1
    for p0 in first:units_at_once(upper):upper.width
        units = min(units_at_once(upper), upper.width - p0 + 1)
        weights = units * upper.fan_in
        w0 = upper.offset - shift + (p0 - 1) * upper.fan_in
        fill_weights!(buffers.Z, ws, layers, block, l, j, m, p0, units)
        gram!(part(w0, inputs), weights, lower.fan_in, Panel(buffers.Z), Panel(B), n)
        if lower.bias && m > l
            gram!(part(w0, bias), weights, 1, Panel(buffers.Z), Panel(B, ones), n)
        elseif lower.bias                          # weights come before biases: their place is the transposed one
            @inbounds for c in (p0 == j ? upper.fan_in : 0)+1:weights   # unit j's own are added as a bias row
                H[bias+1, w0+c] += column_sum(buffers.Z, c, n)
            end
        end
    end
    if upper.bias
        units, b0 = upper.width - first + 1, bias_offset(upper) - shift + first - 1
        gram!(part(b0, inputs), units, lower.fan_in, Panel(Δ̇, first), Panel(B), n)
        lower.bias && gram!(part(b0, bias), units, 1, Panel(Δ̇, first), Panel(B, ones), n)
    end
    return nothing
end

"The factors that stand before a_{l-1}[i] above, for the weights of `units` units of layer m from `p0` on."
function fill_weights!(Z::Matrix{T}, ws::Workspace{T}, layers, block::Block{T}, l::Int, j::Int, m::Int, p0::Int,
                       units::Int) where {T}
    n, A, Δ, Δ̇, k = block.n, layer_input(ws, block, m), ws.Δ[m], ws.Δ̇[m], layers[m].fan_in
    alone = !in_chain(layers[l].chains, j)
    @inbounds for p in p0:p0+units-1, q in 1:k
        c = (p - p0) * k + q
        if m == l || (alone && m == l + 1 && q != j)
            @lanes r n Z[r, c] = Δ̇[r, p] * A[r, q]
        elseif alone && m == l + 1
            @lanes r n Z[r, c] = muladd(Δ̇[r, p], A[r, q], Δ[r, p] * ws.D[l][r, j])
        else
            @lanes r n Z[r, c] = muladd(Δ̇[r, p], A[r, q], Δ[r, p] * ws.Ȧ[m-1][r, q])
        end
    end
    return nothing
end
