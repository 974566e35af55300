"""
    second_order_pass!(ws, net, θ, block, scale)

Forward with f' and f'', then ∂ℓ/∂a in `E` and ∂ℓ/∂h in `Δ` of every layer (of `scale` times the block's
loss): what every second derivative starts from.
"""
function second_order_pass!(ws::Workspace{T}, net, θ, block::Block{T}, scale::T) where {T}
    layers = net.layers
    forward!(ws, net, θ, block, 2)
    block_loss!(net.objective, last(ws.E), ws, block, scale)
    for l in length(layers):-1:1
        hadamard!(ws.Δ[l], ws.D[l], ws.E[l], block.n, layers[l].width)
        l > 1 && pullback!(ws.E[l-1], ws.Δ[l], θ, layers[l], block.n)
    end
    return nothing
end

"Δ̇ = D ∘ Ė + S ∘ E ∘ Ḣ in column j; `Δ̇` holds Ė on entry."
@inline function chain_dot!(Δ̇, D, S, E, Ḣ, j, n)
    @inbounds @lanes r n Δ̇[r, j] = muladd(D[r, j], Δ̇[r, j], S[r, j] * E[r, j] * Ḣ[r, j])
end

"""
    hvp!(y, net, θ, v) -> y

Overwrite `y` with the Hessian-vector product ∇²L(θ) v, without the Hessian: the directional derivative of
the backward pass (Pearlmutter, Neural Computation 6, 1994). Costs about three gradients.
"""
function hvp!(y::Vector{T}, net::Net{T}, θ::Vector{T}, v::Vector{T}) where {T}
    foreach(a -> check_params(net, a), (y, θ, v))
    check_data(net)
    fill!(y, 0)
    if length(net.shares) == 1
        share_hvp!(y, net.shares[1], net, θ, v)
    else
        each_share(net) do share
            share_hvp!(fill!(share.gradient, 0), share, net, θ, v)
        end
        for share in net.shares
            y .+= share.gradient
        end
    end
    return add_penalty_hvp!(y, net.regulariser, θ, v)
end

function share_hvp!(y::Vector{T}, share::Share{T}, net::Net{T}, θ::Vector{T}, v::Vector{T}) where {T}
    ws, layers = share.workspace, net.layers
    L = length(layers)
    scale = one(T) / net.n_samples
    for b in share.blocks
        beat(share, net)
        block = net.blocks[b]
        n = block.n
        second_order_pass!(ws, net, θ, block, scale)
        for l in 1:L
            linear!(ws.Ḣ[l], layer_input(ws, block, l), v, layers[l], n)
            if l > 1                # the input has no derivative: W Ȧ enters from the second layer on
                linear_dot!(ws.Ȧ[l], ws.Ȧ[l-1], θ, layers[l], n)
                add!(ws.Ḣ[l], ws.Ȧ[l], n, layers[l].width)
            end
            hadamard!(ws.Ȧ[l], ws.D[l], ws.Ḣ[l], n, layers[l].width)
        end
        loss_dot!(net.objective, ws.Δ̇[L], ws, ws.Ȧ[L], block, scale)
        for l in L:-1:1
            for j in 1:layers[l].width
                chain_dot!(ws.Δ̇[l], ws.D[l], ws.S[l], ws.E[l], ws.Ḣ[l], j, n)
            end
            accumulate!(y, ws.Δ̇[l], layer_input(ws, block, l), layers[l], n)
            if l > 1
                accumulate_weights!(y, ws.Δ[l], ws.Ȧ[l-1], layers[l], n)
                pullback!(ws.Δ̇[l-1], ws.Δ̇[l], θ, layers[l], n)         # Wᵀ Δ̇
                pullback!(ws.Ȧ[l-1], ws.Δ[l], v, layers[l], n)          # Vᵀ Δ; Ȧ is free from here on
                add!(ws.Δ̇[l-1], ws.Ȧ[l-1], n, layers[l-1].width)
            end
        end
    end
    return y
end

"H = A Wᵀ, without the bias"
linear_dot!(H, A, θ, l::Layer, n) = combine!(H, l.width, A, l.fan_in, θ, l.offset + 1, 1, l.fan_in, -1, n)

function add!(C, A, n::Int, k::Int)
    @inbounds for j in 1:k
        @lanes r n C[r, j] += A[r, j]
    end
    return C
end

"""
    hvp(net, θ, v) -> ∇²L(θ) v
"""
hvp(net::AbstractNet, θ, v) = hvp!(similar(θ), net, θ, v)
